"""Episodes that were quarantined, each as a file that a person can replay it from.

    ledger, rollout ─► Case (in an event) ─► artefact ─► RUN-ppo/quarantine/step-000012-index-000345.json ─► viter replay

What an answer's verifiers failed on is in the case. An episode that ended its workers left nothing but its number, from
which its task is drawn again, in a process of its own: the draw may be what ended them.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import envs
from cluster.config import EngineConfig
from cluster.rollout import Decoding, Heard, Quarantined, turn_seeds
from cluster.rollout_spec import RolloutSpec
from envs.base import Config, ConfigError, DataError, validated
from envs.task import State, Task
from trainers import curriculum

DRAW_S = 30.0  # a draw takes microseconds after a second of imports; this only catches one that does not end


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A worker that died while it held the episode."""

    worker: str
    time: float  # seconds since 1970
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Why an episode was quarantined, and what is known of it."""

    step: int
    index: int
    reason: str
    time: float
    worker: str  # that held it last
    weight_version: int  # steps learnt by the weights that it was sampled with
    deaths: tuple[Death, ...] = ()
    outcome: Quarantined | None = None  # None where its workers died: nothing of it came home


class Artefact(Config):
    """All that it takes to replay a quarantined episode."""

    run: str
    """The stage of a run, as its checkpoints are called."""
    step: int
    index: int
    reason: str
    """In words."""
    time: float
    """When it was quarantined, in seconds since 1970."""
    worker: str
    """The one that held it last."""
    deaths: tuple[Death, ...]
    """Workers that died while they held it."""
    task: Task | None
    """What was played: environment, options and data. None where it could not be drawn."""
    seed: int
    """Of the run. The task is drawn from (seed, "train", step, index)."""
    turn_seeds: tuple[int, ...]
    """Of the answers at the task's first position, in order."""
    decoding: Decoding
    source: str
    """The model that the run started from."""
    weight_version: int
    """Steps learnt by the weights that it was sampled with: those of checkpoint RUN@step-…, or of `source` at 0."""
    engine: EngineConfig
    heard: tuple[Heard, ...] = ()
    """The judged turns before the answer below."""
    state: State | None = None
    """In which the answer was given."""
    answer: str | None = None
    """What no verifier could judge; None where workers died and no turn is known."""

    def told(self) -> str:
        """As the text of a file."""
        return json.dumps(self.model_dump(mode="json"), indent=1)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises DataError: no such file, or not one of these."""
        try:
            return validated(cls, json.loads(path.read_text(encoding="utf-8")), source=str(path))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
        except ConfigError as error:
            raise DataError(str(error)) from None
        except ValueError:
            raise DataError(f"{path}: not JSON; give a file of RUN-ppo/quarantine/") from None


def artefact(case: Case, spec: RolloutSpec, *, run: str) -> Artefact:
    """The case of an episode of `run`, whose workers played by `spec`."""
    outcome = case.outcome
    seeds = turn_seeds(spec.seed, case.step, case.index)
    return Artefact(
        run=run,
        step=case.step,
        index=case.index,
        reason=case.reason,
        time=case.time,
        worker=case.worker,
        deaths=case.deaths,
        task=outcome.task if outcome else drawn_apart(spec, case.step, case.index),
        seed=spec.seed,
        turn_seeds=tuple(seeds(turn) for turn in range(curriculum.at(spec.viter, case.step))),
        decoding=spec.decoding,
        source=spec.source,
        weight_version=case.weight_version,
        engine=spec.engine,
        heard=outcome.heard if outcome else (),
        state=outcome.state if outcome else None,
        answer=outcome.answer if outcome else None,
    )


def drawn_apart(spec: RolloutSpec, step: int, index: int) -> Task | None:
    """The task of an episode, drawn by another process; None where that fails."""
    options = {**spec.options, "viter": curriculum.at(spec.viter, step)}
    asked = {"environment": spec.environment, "options": options, "counters": [spec.seed, "train", step, index]}
    command = [sys.executable, "-m", "cluster.quarantine"]
    try:
        drawn = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=DRAW_S, check=True,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        return Task(**json.loads(drawn.stdout))
    except (subprocess.SubprocessError, OSError, ValueError, TypeError):
        return None


def _draw(asked: dict[str, Any]) -> Task:
    return envs.make(asked["environment"], **asked["options"]).sample(*asked["counters"])


if __name__ == "__main__":
    json.dump(asdict(_draw(json.load(sys.stdin))), sys.stdout)
