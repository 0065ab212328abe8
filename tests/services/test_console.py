"""The console: one plain line per piece of news where nobody watches, live bars where somebody does."""

from io import StringIO

import pytest
from rich.console import Console as Terminal

from cluster.stage_log import Progress
from services import console
from services.console import Console, one_line


def plain() -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(Terminal(file=text, force_terminal=False, width=200)), text


def step(number: int, **metrics: float) -> Progress:
    return Progress(stage="ppo", step=number, steps=3, metrics=metrics)


def test_each_step_with_numbers_is_one_line():
    shown, text = plain()
    for number in (1, 2, 3):
        shown.show(step(number, reward_mean=-0.4175, unheard_of=1.0))
    lines = text.getvalue().splitlines()
    assert [line.split("  ")[-3:] for line in lines] == [["ppo", f"{n}/3", "reward -0.417"] for n in (1, 2, 3)]


def test_the_same_news_twice_is_told_once():
    shown, text = plain()
    shown.show(step(1, loss=2.0))
    shown.show(step(1, loss=2.0))
    assert len(text.getvalue().splitlines()) == 1


def test_polls_without_numbers_are_told_now_and_then(monkeypatch: pytest.MonkeyPatch):
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    shown, text = plain()
    for number in range(100):
        shown.show(Progress(stage="evaluation", step=number, steps=100, message="run@step-000001"))
        now[0] += 1.0
    assert 5 <= len(text.getvalue().splitlines()) <= 100 / console.QUIET_S + 2


def test_an_event_is_told_without_a_count_and_routine_ones_are_left_to_the_log():
    shown, text = plain()
    shown.show(Progress(stage="ppo", step=-1, steps=3, message="worker_replaced worker=rollout-0"))
    shown.show(Progress(stage="ppo", step=-1, steps=3, message="checkpoint name=a"))
    assert text.getvalue().splitlines()[0].endswith("ppo  worker_replaced worker=rollout-0")
    assert "checkpoint" not in text.getvalue()


def test_a_terminal_gets_a_bar_per_stage_and_events_above_it():
    text = StringIO()
    with Console(Terminal(file=text, force_terminal=True, width=120)) as shown:
        shown.show(Progress(stage="sft", step=4, steps=4, metrics={"loss": 0.5}))
        shown.show(step(2, reward_mean=1.5))
        shown.show(Progress(stage="ppo", step=-1, steps=3, message="verifier_replaced"))
    seen = text.getvalue()
    assert "4/4" in seen
    assert "reward 1.5" in seen
    assert "ppo: verifier_replaced" in seen


def test_words_from_outside_are_never_read_as_markup():
    shown, text = plain()
    shown.tell("a [bold]formula[/bold] [/]")
    assert text.getvalue() == "a [bold]formula[/bold] [/]\n"


def test_large_numbers_are_whole_and_small_ones_short():
    assert one_line({"loss": 12345.6, "kl": 0.0061234}) == "loss 12,346  kl 0.00612"
