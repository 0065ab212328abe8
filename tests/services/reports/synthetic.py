"""A run as its files would lie in a store, with numbers one can reason from. Written through the real writers."""

from pathlib import Path

import numpy as np

from envs.task import Status, Task
from services.evaluations import scoring
from services.evaluations.orders import Item, ItemTurn, RateModel, SuiteResult, Tokens
from services.reports import measured
from services.reports.measured import Measured, Point
from trainers.episode import Episode, Segment, Turn, Usage
from trainers.runlog import RunLog

ID, OOD, UNSEEN = "general_points/id", "general_points/ood-rule", "general_points/id-unseen"
HOSTILE = "<script>alert(1)</script> & [bold]{{ 7 * 7 }}"


def rate(share: float, n: int) -> RateModel:
    return RateModel.of(scoring.wilson(round(share * n), n))


def suite_result(suite: str, kind: str, final: float, n: int) -> SuiteResult:
    growth = (0.7, 0.85, 0.93, 0.97, 1.0)
    return SuiteResult(
        suite=suite, kind=kind, digest="d" * 64, n=n, failed=0, success=rate(final, n),
        first_attempt=rate(final * 0.7, n), by_iteration=[rate(final * share, n) for share in growth],
        per_step_accuracy=rate(final * 0.6, 3 * n),
        recognition=rate(0.97, 4 * n), regressions=rate(0, n), tokens=Tokens(prefill=1, cached=2, decoded=3), flops=6,
    )  # fmt: skip


def item(suite: str, *, success: bool) -> Item:
    wrong = ItemTurn(
        answer='{"cards": [7, K, 7, A], "number": [7, 10, 7, 1], "formula": "7+10+7=24"}', reward=-2.0, tokens=26,
        status="wrong_numbers", feedback="you didn't use numbers: [1].", finish_reason="stop",
    )  # fmt: skip
    right = wrong.model_copy(
        update={"answer": wrong.answer.replace("7+10+7", "7+10+7*1"), "status": "correct", "reward": 5.0,
                "feedback": "Correct solution."}
    )  # fmt: skip
    hostile = wrong.model_copy(update={"answer": HOSTILE, "status": "illegal_formula", "reward": -3.0})
    return Item(
        id=f"{suite}/000001", suite=suite, index=1, task="C7-CK-C7-CA", data={}, prompt="Cards: ['7', 'K', '7', 'A']",
        success=success, reward=3.0, turns=[wrong, right] if success else [hostile, wrong], prefill_tokens=1,
        cached_tokens=0, decoded_tokens=52, digest="d" * 64,
    )  # fmt: skip


def point(stage: str, step: int, flops: float, shares: tuple[float, float, float], *, n: int, is_final: bool) -> Point:
    results = {
        ID: suite_result(ID, "id", shares[0], n),
        OOD: suite_result(OOD, "ood", shares[1], n),
        UNSEEN: suite_result(UNSEEN, "id", shares[2], n),
    }  # in the order they were asked for
    episodes = (item(ID, success=True), item(OOD, success=False)) if is_final else ()
    return Point(
        stage=stage, checkpoint=f"demo-{'sft' if stage == 'init' else stage}@step-{step:06d}", digest="ab" * 32,
        step=step, flops=flops, is_final=is_final, results=results, episodes=episodes,
    )  # fmt: skip


def evaluation(run: str = "demo") -> Measured:
    """RL raises ID and keeps OOD; SFT raises ID and loses OOD."""
    points = [point("init", 10, 0, (0.41, 0.15, 0.05), n=512, is_final=True)]
    for i, (ppo, sft) in enumerate(
        zip([(0.48, 0.15), (0.55, 0.17), (0.62, 0.17)], [(0.5, 0.08), (0.58, 0.05), (0.6, 0.03)], strict=True), start=1
    ):
        size = 512 if i == 3 else 256
        points.append(point("ppo", 10 * i, 9e11 * i, (*ppo, 0.06), n=size, is_final=i == 3))
        points.append(point("sft_branch", 40 * i, 7e11 * i, (*sft, 0.02), n=size, is_final=i == 3))
    return Measured(
        run=run, environment="general_points", tasks_word="hands", viter=5, temperature=1.0,
        deals={"ppo": 300, "sft_branch": 300},
        points=tuple(points),
    )  # fmt: skip


def episode(index: int) -> Episode:
    turn = Turn(
        start=3, stop=5, reward=5.0, status=Status.CORRECT, answer='"formula": "7+10+7*1=24"',
        feedback="Correct solution.", finish_reason="stop",
    )  # fmt: skip
    segment = Segment(
        token_ids=np.arange(5, dtype=np.int32), sampled=np.array([0, 0, 0, 1, 1], dtype=bool),
        engine_logp=np.zeros(5, dtype=np.float32), weight_versions=np.zeros(5, dtype=np.int32), turns=(turn,),
    )  # fmt: skip
    usage = Usage(prefill_tokens=3, cached_tokens=0, sampled_tokens=2, generate_s=0.1, verify_s=0.0)
    task = Task(environment="general_points", options={}, id="C7-CK-C7-CA", data={"cards": ["C7", "CK", "C7", "CA"]})
    return Episode(step=29, index=index, task=task, segments=(segment,), terminated=True, truncated=False, usage=usage)


def write_logs(store: Path, run: str = "demo") -> None:
    """The logs of the three stages."""
    for stage, steps in (("sft", 12), ("sft_branch", 40), ("ppo", 30)):
        log = RunLog(store / f"{run}-{stage}")
        log.config({"name": run, "ppo": {"viter": 5}})
        log.environment()
        log.event("started", workers=1)
        for step in range(1, steps + 1):
            log.metrics(step, _metrics(stage, step / steps), stage=stage)
        log.event("worker_replaced", worker="rollout-0", reason=HOSTILE)
        if stage == "ppo":
            log.episodes(steps, [episode(i) for i in range(3)])
        log.close()


def write_run(store: Path, run: str = "demo") -> None:
    """Everything a report is made of."""
    write_logs(store, run)
    measured.write(store / run, evaluation(run))


def _metrics(stage: str, done: float) -> dict[str, float]:
    if stage != "ppo":
        return {"loss": 2 / (1 + 4 * done), "grad_norm": 1 + done, "entropy": 1 - done / 2}
    return {
        "reward_mean": -6 + 7 * done, "success_rate": 0.4 + done / 5, "kl": 0.004 + done / 500,
        "entropy": 0.2 - done / 10, "staleness_mean": 0.0,
        "explained_variance": float("nan") if done < 0.1 else done / 2, "clip_fraction": 0.02,
    }  # fmt: skip
