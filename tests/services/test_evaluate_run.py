"""Measuring a run: what is ordered of which checkpoints, what is found again, and what is told at the end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.config import EvaluationConfig, RunConfig
from cluster.stage_log import Progress
from envs.base import validated
from services import evaluate_run, train_run
from services.evaluations.orders import Counts, Evaluation, EvaluationOrder
from services.reports import measured
from tests.services.reports.synthetic import ID, OOD, evaluation, item, suite_result
from tests.services.reports.walks import registered
from trainers.checkpoints import CheckpointInfo, Checkpoints
from trainers.compute import Compute

STAGES = {"sft": {"steps": 1}, "sft_branch": {"steps": 4, "deals": 30}, "ppo": {"steps": 2, "answer_tokens": 48}}


def config(store: Path, **changes: Any) -> RunConfig:
    return validated(RunConfig, {"name": "a", **STAGES, "store": {"uri": str(store)}, **changes}, source="test")


def commit(store: Path, run: str, step: int, trained_tokens: int) -> None:
    spent = Compute(parameters=10, trained_tokens=trained_tokens).to_dict()
    Checkpoints(store, run).commit(
        step,
        lambda path: ((path / "model").mkdir(), (path / "model" / "weights").write_text(f"{run} {step}")),
        CheckpointInfo(compute=spent),
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for run, step, tokens in (("a-sft", 1, 5), ("a-sft_branch", 2, 7), ("a-sft_branch", 4, 9), ("a-ppo", 2, 20)):
        commit(tmp_path, run, step, tokens)
    return tmp_path


class Service:
    """A service that has played everything the moment it is ordered, and knows its orders by their keys."""

    def __init__(self, status: str = "completed"):
        self.status, self.orders, self.by_key = status, [], {}

    def evaluate(self, checkpoint: str, *, idempotency_key: str | None = None, **order: Any) -> Evaluation:
        if idempotency_key in self.by_key:
            return self.by_key[idempotency_key]
        self.orders.append((checkpoint, order))
        names = tuple(order["suites"])
        made = Evaluation(
            id=f"eval-{len(self.orders):08d}", status=self.status if idempotency_key else "completed", created_at=0.0,
            model=checkpoint, digest="d", order=EvaluationOrder(checkpoint=checkpoint, **order),
            counts=Counts(total=order["n"] * len(names), done=order["n"] * len(names)),
            results=[suite_result(name, "ood" if name == OOD else "id", 0.5, order["n"]) for name in names],
        )  # fmt: skip
        self.by_key[idempotency_key] = made
        return made

    def wait(self, evaluation_id: str, on_progress: Callable[[Evaluation], object]) -> Evaluation:
        (found,) = (each for each in self.by_key.values() if each.id == evaluation_id)
        on_progress(found)
        return found.model_copy(update={"status": "completed"})

    def items(self, evaluation_id: str) -> Any:
        return iter([item(ID, success=True), item(OOD, success=False)])

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None: ...


def test_init_comes_first_then_each_branch_by_step(store: Path):
    wanted = [(w.stage, w.checkpoint.name, w.is_final) for w in evaluate_run.wanted_of(config(store))]
    assert wanted == [
        ("init", "a-sft@step-000001", True),
        ("sft_branch", "a-sft_branch@step-000002", False),
        ("sft_branch", "a-sft_branch@step-000004", True),
        ("ppo", "a-ppo@step-000002", True),
    ]


def test_without_an_sft_stage_init_is_the_checkpoint_that_the_run_names(store: Path):
    only_ppo = config(store, sft=None, sft_branch=None, model={"source": "a-sft@latest"})
    assert next(evaluate_run.wanted_of(only_ppo)).checkpoint.name == "a-sft@step-000001"


def test_a_run_is_measured_whole_and_found_again(store: Path, monkeypatch: pytest.MonkeyPatch):
    service, seen = Service(), []
    monkeypatch.setattr(evaluate_run, "_service", lambda *_: service)
    settings = EvaluationConfig(suites=(ID, OOD), n=64, curve_n=16, viter=3)
    found = evaluate_run.measure(config(store), settings, seen.append)
    assert [order["n"] for _, order in service.orders] == [64, 16, 64, 64]
    assert all(order["decoding"]["max_tokens"] == 48 for _, order in service.orders)
    assert [p.flops for p in found.points] == [0, 6 * 10 * 2, 6 * 10 * 4, 6 * 10 * 15]  # after init
    assert [len(p.episodes) for p in found.points] == [2, 0, 2, 2]
    assert found.deals == {"sft_branch": 30, "ppo": None}
    assert found.curriculum == ""
    assert seen[-1] == Progress(stage="evaluation", step=416, steps=416, message="done")
    evaluate_run.measure(config(store), settings, seen.append)
    assert len(service.orders) == 4  # the second time finds what was played


def test_a_curriculum_is_kept_in_words_and_does_not_change_how_it_is_measured(store: Path, monkeypatch):
    service = Service()
    monkeypatch.setattr(evaluate_run, "_service", lambda *_: service)
    changing = config(store, ppo={"steps": 2, "viter": [[0, 1], [1, 7]]})
    found = evaluate_run.measure(changing, EvaluationConfig(suites=(ID,), n=4), lambda _: None)
    assert (found.curriculum, found.viter) == ("1 at first, 7 after 1 step", 5)
    assert {order["viter"] for _, order in service.orders} == {5}


def test_a_run_in_vision_is_measured_in_vision_and_shown_as_it_trained(store: Path):
    options = {"modality": "vision", "town": "here", "resolution": 64}
    service = Service()
    with registered():
        seen = config(store, environment={"name": "walks", "options": options})
        evaluate_run.order(service, seen, EvaluationConfig(n=4), next(evaluate_run.wanted_of(seen)))
    ((_, ordered),) = service.orders
    assert ordered["suites"] == ("walks/vision-id", "walks/vision-ood-rule")
    assert (ordered["modality"], ordered["options"]) == ("vision", {"resolution": 64})


def test_an_evaluation_that_failed_before_is_ordered_anew(store: Path):
    service, settings = Service(status="failed"), EvaluationConfig(suites=(ID,), n=4)
    init = next(evaluate_run.wanted_of(config(store)))
    assert evaluate_run.order(service, config(store), settings, init).status == "completed"
    assert len(service.orders) == 2


def test_while_evaluations_take_turns_the_tasks_of_all_are_counted():
    """The first to be waited for may be far from its end while others are nearly done."""

    class InTurns(Service):
        polls = 0

        def evaluation(self, evaluation_id: str) -> Evaluation:
            (found,) = (each for each in self.by_key.values() if each.id == evaluation_id)
            done = min(found.counts.total, 2 * self.polls)
            return found.model_copy(update={"counts": Counts(total=found.counts.total, done=done)})

        def wait(self, evaluation_id: str, on_progress: Callable[[Evaluation], object]) -> Evaluation:
            while self.polls < 4:
                self.polls += 1
                on_progress(self.evaluation(evaluation_id))
            return self.evaluation(evaluation_id)

    service, seen = InTurns(status="in_progress"), []
    made = [service.evaluate(name, idempotency_key=name, suites=[ID], n=8) for name in ("first", "second", "third")]
    ordered = [service.evaluation(each.id) for each in made]
    evaluate_run.wait_all(service, ordered, seen.append)
    assert [(told.step, told.steps) for told in seen] == [(6, 24), (12, 24), (18, 24), (24, 24), (24, 24)]
    assert seen[0].message == "0 of 3 checkpoints"


def test_an_interrupt_cancels_the_evaluation():
    class Interrupted(Service):
        cancelled = ""

        def wait(self, *_: Any) -> Evaluation:
            raise KeyboardInterrupt

        def cancel(self, evaluation_id: str) -> None:
            self.cancelled = evaluation_id

    service = Interrupted(status="in_progress")
    service.evaluate = lambda c, **order: Service.evaluate(service, c, idempotency_key="k", **order)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        evaluate_run.one(service, "a@latest", lambda _: None, suites=(ID,), n=4, viter=1)
    assert service.cancelled == "eval-00000001"


def test_episodes_for_people_are_chosen_by_kind_not_by_merit():
    rows = [item(ID, success=i % 2 == 0).model_copy(update={"index": i, "id": f"{ID}/{i}"}) for i in range(20)]
    rows.append(rows[0].model_copy(update={"error": "timeout", "index": -1}))
    assert sorted(row.index for row in evaluate_run.shown(iter(reversed(rows)))) == [0, 1, 2, 3]


def test_the_token_is_the_one_given_or_the_one_left_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VITER_TOKEN", raising=False)
    assert evaluate_run.token(str(tmp_path)) is None
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "token").write_text("left\n")
    assert evaluate_run.token(str(tmp_path)) == "left"
    monkeypatch.setenv("VITER_TOKEN", "given")
    assert evaluate_run.token(str(tmp_path)) == "given"


def test_the_summary_holds_every_last_checkpoint_on_every_suite_and_the_finding():
    told = train_run.summary(evaluation())
    table, finding = told.split("\n\n")
    assert len(table.splitlines()) == 1 + 3 * 3
    assert "0.410 [0.368, 0.453]" in table
    assert "RL on 300 hands: ID success rose" in finding


def test_the_table_tells_steps_where_an_environment_is_measured_by_them():
    result = suite_result(ID, "id", 0.5, 64)
    plain = evaluate_run.table([("a", result)])
    assert plain.splitlines()[0].split() == ["suite", "success", "first", "attempt", "recognition", "n"]
    head, row = evaluate_run.table([("a", result.model_copy(update={"headline": "per_step_accuracy"}))]).splitlines()
    assert head.split()[:4] == ["suite", "per", "step", "success"]
    assert measured.told(result.per_step_accuracy) in row


def test_what_to_try_next_names_this_store():
    told = train_run.next_steps("a@latest", "/elsewhere", "/elsewhere/a/report.html")
    assert told.count("--store /elsewhere") == 2
    assert "--store" not in train_run.next_steps("a@latest", "runs", "runs/a/report.html")
    _, _, serve, evaluate = train_run.next_steps("a@latest", "s3://b/runs?scheme=http&x=1", "p.html").splitlines()
    assert "--store 's3://b/runs?scheme=http&x=1'" in serve
    assert "--store" not in evaluate
