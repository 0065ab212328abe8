"""What `head-kills` makes of the lines of its clients."""

from typing import Any

import pytest

from services.chaos.head import Fault, found

FAULT = Fault(killed=100.0, restarted=110.0, back=115.0, whole=125.0)


def answer(began: float, **changed: Any) -> dict[str, Any]:
    return {
        "kind": "answer", "client": 0, "status": 200, "text": ["13 + 11", "digest"], "began": began, "seconds": 1.0, **changed,
    }  # fmt: skip


def evaluated(began: float, ended: float, *, whole: bool = True) -> dict[str, Any]:
    return {"kind": "evaluated", "began": began, "ended": ended, "whole": whole}


CALM = [
    answer(90.0),
    answer(105.0),
    answer(130.0),
    answer(130.0, client=1, text=["no", "digest"]),
    evaluated(95.0, 120.0),
]


def broken(*more: dict[str, Any], without: int | None = None, is_same: bool = True) -> list[str]:
    lines = [line for number, line in enumerate(CALM) if number != without] + list(more)
    return [claim.text for claim in found(lines, [FAULT], is_same=is_same).claims if not claim.holds]


def test_a_service_that_noticed_nothing_holds():
    outcome = found(CALM, [FAULT], is_same=True)
    assert outcome.held
    assert (outcome.numbers["requests"], outcome.numbers["answered without a head"]) == (4, 1)
    assert (outcome.numbers["head back s"], outcome.numbers["service whole s"]) == (5.0, 15.0)


@pytest.mark.parametrize("status", [0, 429, 503])
def test_a_request_that_failed_is_told_with_its_status(status: int):
    assert broken(answer(106.0, status=status, text=None)) == [f"every request answered with 200 {{{status}: 1}}"]


@pytest.mark.parametrize("text", [["13 + 12", "digest"], ["13 + 11", "of other weights"]])
def test_an_answer_that_changed_is_seen(text: list[str]):
    (told,) = broken(answer(130.0, text=text))
    assert "the same throughout" in told


def test_a_listing_has_no_text_to_compare():
    assert broken(answer(106.0, text=None)) == []


def test_answers_before_and_after_do_not_stand_for_one_without_a_head():
    assert broken(without=1) == ["some while there was no head"]


@pytest.mark.parametrize("other", [evaluated(80.0, 99.0), evaluated(101.0, 120.0)])
def test_an_evaluation_counts_only_where_it_was_under_way_at_the_fault(other: dict[str, Any]):
    (told,) = broken(other, without=4)
    assert "went on through each fault" in told


def test_an_evaluation_that_lost_an_item_is_seen_whenever_it_ran():
    (told,) = broken(evaluated(126.0, 140.0, whole=False))
    assert "every item once" in told


def test_a_replica_that_was_started_anew_is_seen():
    (told,) = broken(is_same=False)
    assert "the processes they were" in told
