"""The environment: deals, prompts, the state after each verdict, and what an expert or a beginner would answer."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import envs
from envs.answers import list_field, text_field
from envs.base import ConfigError, DataError, seed_of, validated
from envs.general_points import hands, mistakes, prompts
from envs.general_points.options import GeneralPointsOptions, Table
from envs.general_points.verifier import MISREAD, PROFILES, Grade, Hand, hand_of
from envs.suites import SuiteSpec
from envs.task import Message, State, Status, Task, Verdict

if TYPE_CHECKING:
    import numpy as np

NAME = "general_points"
_LIMIT = Verdict(reward=-1.0, status=Status.LIMIT, feedback=prompts.LIMIT, truncated=True)
_LIMIT_STATE = State(attempts_left=0, is_over=True)
_SEEN = {"modality": "vision", "suits": "black", "face_cards": "ten"}  # what vision trains on; each suite changes one
_MISREAD_SHARE = 3  # of the mistakes in vision, one in so many is a misread card


class GeneralPoints:
    """GeneralPoints with its options fixed: `GeneralPoints(face_cards="rank")`."""

    name = NAME
    suites: ClassVar[Mapping[str, SuiteSpec]] = {
        "id": SuiteSpec("id", {"face_cards": "ten"}),
        "ood-rule": SuiteSpec("ood", {"face_cards": "rank", "min_face_cards": 1}),
        "id-unseen": SuiteSpec("id", {"face_cards": "ten", "hands": "held_out"}),
        "ood-unseen": SuiteSpec("ood", {"face_cards": "rank", "min_face_cards": 1, "hands": "held_out"}),
        "vision-id": SuiteSpec("id", _SEEN),
        "vision-ood-rule": SuiteSpec("ood", {**_SEEN, "face_cards": "rank", "min_face_cards": 1}),
        "vision-ood-visual": SuiteSpec("ood", {**_SEEN, "suits": "red"}),
        "vision-id-unseen": SuiteSpec("id", {**_SEEN, "hands": "held_out"}),
        "vision-ood-font": SuiteSpec("ood", {**_SEEN, "deck": "serif"}),
        "vision-ood-four-colour": SuiteSpec("ood", {**_SEEN, "suits": "mixed", "deck": "four_colour"}),
        "vision-ood-rotated": SuiteSpec("ood", {**_SEEN, "scene": "rotated"}),
        "vision-ood-noisy": SuiteSpec("ood", {**_SEEN, "scene": "noisy"}),
    }
    presentation: ClassVar[tuple[str, ...]] = ("viter", "resolution")
    tasks_word: ClassVar[str] = "hands"
    phrases: ClassVar[tuple[str, ...]] = prompts.PHRASES
    vision_phrases: ClassVar[tuple[str, ...]] = prompts.VISION_PHRASES

    def __init__(self, **options: Any) -> None:
        self.options = validated(GeneralPointsOptions, options, source=f"{NAME} options")
        self._resolved = self.options.model_dump()
        self._target = self.options.target
        self._face_cards = self.options.face_cards
        self._viter = self.options.viter
        self._grade = PROFILES[self.options.rewards]
        self._stops_at_last = self.options.rewards == "paper"
        self._is_seen = self.options.modality == "vision"
        self._before, self._after = prompts.question(self._target, self._face_cards)
        self._beside_picture = prompts.question_of_picture(self._target, self._face_cards)
        self._pool: list[Task] = []

    # ------------------------------------------------------------ tasks
    def sample(self, *counters: int | str) -> Task:
        """The task of these counters. Solvable, and distributed as cards dealt one by one with replacement."""
        if self.options.deals is None:
            return self._deal(*counters)
        return self._finite_pool()[seed_of(NAME, "deals", *counters) % self.options.deals]

    def task_of(self, state: Mapping[str, Any]) -> Task:
        """The task of `{"cards": ["C7", "CK", "C7", "CA"]}`, solvable or not; anything else is a ConfigError."""
        return self._task(validated(Table, state, source="state").cards)

    def _task(self, cards: list[str]) -> Task:
        return Task(environment=NAME, options=self._resolved, id="-".join(cards), data={"cards": cards})

    def start(self, task: Task) -> State:
        return State(attempts_left=self._as_dealt(task)._viter)

    def prompt(self, task: Task, state: State) -> tuple[Message, ...]:  # noqa: ARG002 - one position, one prompt
        game = self._as_dealt(task)
        if game._is_seen:
            return (Message(role="user", text=game._beside_picture, images=(task.id,)),)
        return (Message(role="user", text=f"{game._before}{prompts.card_list(_written(task))}{game._after}"),)

    def image(self, key: str) -> "np.ndarray":
        """The picture of the hand that `key` names, as "CK-C7-HT-CA": [resolution, resolution, 3] uint8, read-only.

        Raises:
            DataError: the key names no hand.
        """
        from envs.general_points import cards  # here, so that games in language load no imaging library

        return cards.album(self.options.deck, self.options.scene, self.options.resolution)(key)

    # ------------------------------------------------------------ verdicts
    def verify(self, task: Task, state: State, answer: str) -> tuple[Verdict, State]:
        """Judge an answer. An answer at `attempts_left` 0 is not graded: it is told that the limit is reached."""
        if state.attempts_left <= 0:
            return _LIMIT, _LIMIT_STATE
        game = self._as_dealt(task)
        reward, status, feedback = game._graded(task, answer)
        attempts_left = state.attempts_left - 1
        solved = status is Status.CORRECT
        failed = not solved and attempts_left == 0 and game._stops_at_last
        verdict = Verdict(reward=reward, status=status, feedback=feedback, terminated=solved, truncated=failed)
        return verdict, State(attempts_left=attempts_left, is_over=solved or failed)

    def feedback(self, verdict: Verdict) -> Message:
        return Message(role="user", text=f"{prompts.FAILED}{verdict.feedback}")

    def recognises(self, task: Task, answer: str) -> bool:
        """Whether the answer names the dealt cards, in any order.

        In language, where they need only be copied, it must also say what each of them counts as. Graded in vision only.
        """
        game = self._as_dealt(task)
        if game._is_seen:
            return _names_cards(task, answer)
        cards, numbers = list_field(answer, "cards", 4), list_field(answer, "number", 4)
        dealt = zip(_written(task), game._hand(task).numbers, strict=True)
        return bool(cards and numbers) and sorted(zip(cards, numbers, strict=True)) == sorted(dealt)

    # ------------------------------------------------------------ answers
    def expert(self, task: Task, state: State, *counters: int | str) -> str:  # noqa: ARG002 - the same at any attempt
        """A correct answer: the plainest solution without counters, else one of the three plainest.

        Raises:
            DataError: the hand has no solution.
        """
        game = self._as_dealt(task)
        hand = game._hand(task)
        solutions = hands.preferred(hand.values, game._target)
        if not solutions:
            raise DataError(f"{task.id}: these cards have no solution for target {game._target}; sample another task")
        chosen = solutions[seed_of(NAME, "expert", *counters) % len(solutions) if counters else 0]
        return prompts.answer(_written(task), hand.numbers, chosen, game._target)

    def mistake(self, task: Task, state: State, *counters: int | str) -> str:  # noqa: ARG002 - the same at any attempt
        """A well-formed answer that is wrong in its value or in one of its numbers, or, in vision, in one of its cards."""
        game = self._as_dealt(task)
        if game._is_seen and seed_of(NAME, "misread", task.id, *counters) % _MISREAD_SHARE == 0:
            return game._misread(task, *counters)
        hand = game._hand(task)
        formula = mistakes.wrong_formula(hand, game._target, seed_of(NAME, "mistake", task.id, *counters))
        return prompts.answer(_written(task), hand.numbers, formula, game._target)

    def identity(self, task: Task) -> str:
        """What a model could remember of a task: its numbers with J, Q and K as ten, sorted, e.g. "1-7-7-10"."""
        ranks = tuple(hands.RANK_OF[card[1]] for card in task.data["cards"])
        return "-".join(map(str, hands.values_of(ranks, "ten")))

    # ------------------------------------------------------------ within
    def _graded(self, task: Task, answer: str) -> Grade:
        """Where cards are seen, what was recognised comes first; wrong cards are all that is told."""
        if self._is_seen and not _names_cards(task, answer):
            return MISREAD
        return self._grade(text_field(answer, "formula").partition("=")[0], self._hand(task), self._target)

    def _misread(self, task: Task, *counters: int | str) -> str:
        """What somebody who took one card for another would answer: right for the hand they saw, where that can be."""
        seed = seed_of(NAME, "misread as", task.id, *counters)
        ranks = mistakes.misread("".join(card[1] for card in task.data["cards"]), seed)
        hand = hand_of(ranks, self._face_cards)
        solutions = hands.preferred(hand.values, self._target)
        formula = solutions[0] if solutions else mistakes.wrong_formula(hand, self._target, seed)
        return prompts.answer(tuple(hands.WRITTEN[rank] for rank in ranks), hand.numbers, formula, self._target)

    def _deal(self, *counters: int | str) -> Task:
        ranks, suits = self._table
        # The remainder is uneven by less than 1e-12 of a share: 63 bits over 5 million deals.
        number = seed_of(NAME, *counters) % (len(ranks) * len(suits))
        order, colours = ranks[number // len(suits)], suits[number % len(suits)]
        return self._task([suit + hands.RANKS[rank - 1] for suit, rank in zip(colours, order, strict=True)])

    @cached_property
    def _table(self) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
        options = self.options
        ranks = hands.dealt(options.target, options.face_cards, options.hands, options.min_face_cards)
        if not ranks:
            raise ConfigError(
                f"{NAME} options: target: {options.target}: no hand reaches it with face_cards={options.face_cards!r}, "
                f"hands={options.hands!r}, min_face_cards={options.min_face_cards}; choose another target"
            )
        return ranks, hands.suits_of(options.suits)

    def _finite_pool(self) -> list[Task]:
        """The first `deals` distinct deals of a fixed order, so that a smaller pool is a part of a larger one."""
        if not self._pool:
            wanted = self.options.deals or 0
            ranks, suits = self._table
            existing = len(ranks) * len(suits)
            if wanted > existing:
                raise ConfigError(f"{NAME} options: deals: {wanted}: only {existing} different ones exist")
            pool: dict[str, Task] = {}
            draw = 0
            while len(pool) < wanted:
                task = self._deal("pool", draw)
                pool.setdefault(task.id, task)
                draw += 1
            self._pool = list(pool.values())
        return self._pool

    def _as_dealt(self, task: Task) -> "GeneralPoints":
        """The variant that the task was dealt under, which its options name."""
        if task.options is self._resolved or task.options == self._resolved:
            return self
        return cast(GeneralPoints, envs.make(NAME, **task.options))

    def _hand(self, task: Task) -> Hand:
        first, second, third, fourth = task.data["cards"]
        return hand_of(first[1] + second[1] + third[1] + fourth[1], self._face_cards)


def _written(task: Task) -> tuple[str, ...]:
    """The cards as the model reads them: `("C7", "HT")` is ("7", "10")."""
    return tuple(hands.WRITTEN[card[1]] for card in task.data["cards"])


def _names_cards(task: Task, answer: str) -> bool:
    return sorted(list_field(answer, "cards", 4)) == sorted(_written(task))
