"""A run of `walks` in vision as its files would lie in a store: several positions, pictures, and a town without one.

Episodes are played by a walker of known skill, and counted by the code that counts real ones.
"""

from dataclasses import replace
from pathlib import Path
from random import Random

import envs
from envs import suites
from envs.task import Task
from services import evaluate_run
from services.evaluations.items import item_of
from services.evaluations.orders import EvaluationOrder, Item, PlayOrder
from services.evaluations.results import suite_result
from services.reports import measured
from services.reports.measured import Measured, Point, Stage
from tests.services.conftest import commit
from tests.services.reports.walks import Walks, played
from trainers.checkpoints import Checkpoint
from trainers.episode import Episode
from trainers.runlog import RunLog

SUITES = ("walks/vision-id", "walks/vision-ood-rule", "walks/vision-ood-visual")
SHOWN = {"resolution": 96}
SKILLS: dict[Stage, list[tuple[float, float, float]]] = {  # of each checkpoint, by suite
    "init": [(0.55, 0.4, 0.35)],
    "ppo": [(0.7, 0.5, 0.4), (0.8, 0.65, 0.45), (0.9, 0.8, 0.55)],
    "sft_branch": [(0.75, 0.3, 0.3), (0.85, 0.2, 0.25), (0.95, 0.1, 0.2)],
}


def walked(walks: Walks, task: Task, skill: float, seed: int) -> Episode:
    """An episode of a walker who reads each sign with probability `skill`, and goes right somewhat more often."""
    draw, state, answers = Random(seed), walks.start(task), []
    while not state.is_over:
        if len(answers) == state.position:
            answers.append([])
        word = task.data["words"][state.position]
        sign, way = (word if draw.random() < share else "nowhere" for share in (skill, skill**0.5))
        answers[-1].append(f"sign {sign}: {way}")
        _, state = walks.verify(task, state, answers[-1][-1])
    return played(walks, task, answers)


def items(checkpoint: Checkpoint, suite: str, skill: float, n: int) -> list[Item]:
    order = PlayOrder(checkpoint=checkpoint, suite=suite, indices=(), order=EvaluationOrder(checkpoint=checkpoint.name))
    tasks = suites.presented(suites.load(suite, n).tasks, viter=2, **SHOWN)
    walks = envs.make("walks", **tasks[0].options)
    assert isinstance(walks, Walks)
    return [item_of(order, walks, task, i, walked(walks, task, skill, seed=i)) for i, task in enumerate(tasks)]


def evaluation(store: Path, n: int = 96) -> Measured:
    """RL raises everything a little, SFT raises ID and loses the rest."""
    checkpoint = commit(store / "weights", "w", 1)
    points = []
    for stage, skills in SKILLS.items():
        for i, shares in enumerate(skills, start=1):
            found = {suite: items(checkpoint, suite, share, n) for suite, share in zip(SUITES, shares, strict=True)}
            is_final = i == len(skills)
            points.append(
                Point(
                    stage=stage, checkpoint=f"walk-{stage}@step-{10 * i:06d}", digest="ab" * 32, step=10 * i,
                    flops=0 if stage == "init" else 9e11 * i, is_final=is_final,
                    results={
                        name: suite_result(suites.load(name, n), rows, viter=2, parameters=10)
                        for name, rows in found.items()
                    },
                    episodes=tuple(evaluate_run.shown(row for rows in found.values() for row in rows)) if is_final else (),
                )
            )  # fmt: skip
    return Measured(
        run="walk", environment="walks", tasks_word="walks", options=SHOWN, viter=2, temperature=1.0,
        deals={"ppo": 200, "sft_branch": 200}, points=tuple(points),
    )  # fmt: skip


def write_run(store: Path) -> None:
    """Its evaluation, and the log of its RL stage with episodes."""
    measured.write(store / "walk", evaluation(store))
    walks = Walks(modality="vision", resolution=96)
    log = RunLog(store / "walk-ppo")
    log.metrics(1, {"reward_mean": 1.0}, stage="ppo")
    log.episodes(1, [replace(walked(walks, walks.sample(i), 0.6, i), index=i, step=1) for i in range(3)])
    log.close()
