"""The environment: walks, prompts, the state after each verdict, and what an expert or a beginner would answer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import envs
from envs.answers import text_field
from envs.base import seed_of, validated
from envs.suites import SuiteSpec
from envs.task import Message, State, Status, Task, Verdict
from envs.virl import cities, prompts
from envs.virl.options import Spot, VirlOptions, Walk
from envs.virl.routes import COMPASS
from envs.virl.verifier import Verifier
from envs.virl.walks import NAME, Walks

if TYPE_CHECKING:
    import numpy as np

_ACTION, _SEEN, _IS_INTERSECTION, _LINE, _HEADING, _GEOCODE = range(6)  # of an entry of a task's rail
_OTHER_CITIES = tuple(name for name in cities.NAMES if name != cities.TRAINED)


class Virl:
    """V-IRL with its options fixed: `Virl(actions="relative")`."""

    name = NAME
    headline: ClassVar[str] = "per_step_accuracy"
    tasks_word: ClassVar[str] = "routes"
    presentation: ClassVar[tuple[str, ...]] = ("viter", "resolution", "legacy_grid")
    suites: ClassVar[Mapping[str, SuiteSpec]] = {
        "id": SuiteSpec("id", {}),
        "ood-rule": SuiteSpec("ood", {"actions": "relative"}),
        "id-unseen": SuiteSpec("id", {"split": "held_out"}),
        **{f"ood-{city}": SuiteSpec("ood", {"city": city}) for city in _OTHER_CITIES},
        "vision-id": SuiteSpec("id", {"modality": "vision"}),
        "vision-ood-rule": SuiteSpec("ood", {"modality": "vision", "actions": "relative"}),
        "vision-id-unseen": SuiteSpec("id", {"modality": "vision", "split": "held_out"}),
        **{f"vision-ood-{city}": SuiteSpec("ood", {"modality": "vision", "city": city}) for city in _OTHER_CITIES},
    }
    phrases: ClassVar[tuple[str, ...]] = (*prompts.PHRASES, *cities.WORDS)
    vision_phrases: ClassVar[tuple[str, ...]] = prompts.VISION_PHRASES

    def __init__(self, **options: Any) -> None:
        self.options = validated(VirlOptions, options, source=f"{NAME} options")
        self._resolved = self.options.model_dump()
        self._walks = Walks(self.options, self._resolved)
        self._sees = self.options.modality == "vision"
        self._viter = self.options.viter
        self._verifier = Verifier(rewards=self.options.rewards, legacy_intersections=self.options.legacy_intersections)

    # ------------------------------------------------------------ tasks
    def sample(self, *counters: int | str) -> Task:
        """The walk of these counters."""
        return self._walks.task(*counters)

    def task_of(self, state: Mapping[str, Any]) -> Task:
        """The task of one position, as `{"action": …, "landmark": …, "intersection": …, "instruction": …}`, or of a whole
        walk, as the `data` of one that was dealt."""
        if "rail" in state:
            return self._given(validated(Walk, state, source="state"))
        spot = validated(Spot, state, source="state")
        entry = [spot.action, spot.landmark, bool(spot.intersection), 0, 0, [0.0, 0.0]]
        return Task(
            environment=NAME, options=self._resolved, id="one position",
            data={"instructions": [spot.instruction], "rail": [entry]},
        )  # fmt: skip

    def _given(self, walk: Walk) -> Task:
        rail = [[*entry[:-1], list(entry[-1])] for entry in walk.rail]
        data = {"instructions": walk.instructions, "rail": rail}
        return Task(environment=NAME, options=self._resolved, id="given walk", data=data)

    def start(self, task: Task) -> State:
        return State(attempts_left=self._as_dealt(task)._viter)

    def states(self, task: Task) -> tuple[State, ...]:
        """The start of every position."""
        viter = self._as_dealt(task)._viter
        return tuple(State(attempts_left=viter, position=position) for position in range(len(task.data["rail"])))

    def prompt(self, task: Task, state: State) -> tuple[Message, ...]:
        """One user turn: instructions, and all that was observed and done so far. In vision, what is seen now is a picture."""
        walk = self._as_dealt(task)
        rail = task.data["rail"][: state.position + 1]
        past = [(_observation(entry), entry[_ACTION]) for entry in rail[:-1]]
        now = prompts.observation(prompts.FOUR_VIEWS, _intersection(rail[-1])) if walk._sees else _observation(rail[-1])
        text = prompts.question(
            task.data["instructions"], past, now, actions=walk.options.actions, sees=walk._sees
        )  # fmt: skip
        return (Message(role="user", text=text, images=(walk._key(rail[-1]),) if walk._sees else ()),)

    def image(self, key: str) -> "np.ndarray":
        """The four views that `key` names: [resolution, resolution, 3] uint8, read-only.

        Raises:
            DataError: the key names no place, or the user's panorama there is missing or corrupt.
        """
        from envs.virl.album import album  # here, so that walks in language load no imaging library

        return album(self.options.resolution, self.options.legacy_grid, self.options.panoramas)(key)

    def _key(self, entry: list[Any]) -> str:
        from envs.virl.album import key

        return key(self._walks.source, entry[_GEOCODE], entry[_HEADING])

    # ------------------------------------------------------------ verdicts
    def verify(self, task: Task, state: State, answer: str) -> tuple[Verdict, State]:
        """Judge an answer. At `attempts_left` 0 it is not judged: it is told that the limit is reached."""
        walk, rail, position = self._as_dealt(task), task.data["rail"], state.position
        action, seen, is_intersection, *_ = rail[position]
        verdict = walk._verifier.judge(action, seen, is_intersection, state.attempts_left, answer)
        if verdict.status is Status.CORRECT:
            is_over = verdict.terminated or position + 1 == len(rail)
            return verdict, State(attempts_left=walk._viter, position=position + 1, is_over=is_over)
        attempts_left = max(0, state.attempts_left - 1)
        return verdict, State(attempts_left=attempts_left, position=position, is_over=verdict.truncated)

    def feedback(self, verdict: Verdict) -> Message:
        return Message(role="user", text=f"{prompts.FAILED}{verdict.feedback}")

    def observes(self, task: Task, position: int, answer: str) -> bool:
        """Whether the answer names what is to be observed at a position: the landmark, or that there is none."""
        said, seen = text_field(answer, "current observation"), task.data["rail"][position][_SEEN]
        return said == seen or said.startswith(prompts.observation(seen, "").rstrip())  # a name may hold a ";" too

    # ------------------------------------------------------------ answers
    def expert(self, task: Task, state: State, *counters: int | str) -> str:  # noqa: ARG002 - there is one right answer
        entry = task.data["rail"][state.position]
        return prompts.answer(_observation(entry), task.data["instructions"][entry[_LINE]], entry[_ACTION])

    def mistake(self, task: Task, state: State, *counters: int | str) -> str:
        """A well-formed answer with another action; a third of them also say the opposite of an intersection."""
        walk, entry = self._as_dealt(task), task.data["rail"][state.position]
        words = COMPASS if walk.options.actions == "absolute" else prompts.RELATIVE
        actions = [prompts.FORWARD, prompts.STOP, *map(prompts.turn, words)]
        others = [action for action in actions if action != entry[_ACTION]]
        draw = seed_of(NAME, "mistake", task.id, state.position, *counters)
        claim = "" if entry[_IS_INTERSECTION] else prompts.AT_INTERSECTION
        observed = prompts.observation(entry[_SEEN], claim) if draw % 3 == 0 else _observation(entry)
        return prompts.answer(observed, task.data["instructions"][entry[_LINE]], others[draw // 3 % len(others)])

    def identity(self, task: Task) -> str:
        """What a model could remember of a walk: its route."""
        return task.id.partition("#")[0]

    # ------------------------------------------------------------ within
    def _as_dealt(self, task: Task) -> "Virl":
        """The variant that the task was dealt under, which its options name."""
        if task.options is self._resolved or task.options == self._resolved:
            return self
        return cast(Virl, envs.make(NAME, **task.options))


def _intersection(entry: list[Any]) -> str:
    return prompts.AT_INTERSECTION if entry[_IS_INTERSECTION] else ""


def _observation(entry: list[Any]) -> str:
    return prompts.observation(entry[_SEEN], _intersection(entry))
