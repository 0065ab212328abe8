"""The corpus that makes a nano base model: it has practised every part of GeneralPoints, and one whole.

    num     numbers -> formula                                         the skill, on numbers 1 to 13
    retry   numbers -> wrong formula -> verdict -> formula             hearing a verdict
    map     the task under a random stated rule -> cards -> numbers    reading the rule
    bridge  the task under a random stated rule, no face card in it    the whole form

A face card that counts as 11 to 13 is never seen together with a formula: that is what the OOD suites ask. Held-out
hands appear nowhere.
"""

import random
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np

from envs.base import seed_of
from envs.general_points import hands, mistakes, prompts, verifier
from envs.task import Message
from trainers.chat import ChatFormat
from trainers.corpus import plain_segment
from trainers.episode import Segment

TARGET = 24
SHARES = {"num": 128, "retry": 16, "map": 24, "bridge": 32}
"""Documents of each kind in an update of 200."""

ID_RULE, OOD_RULE = (10, 10, 10), (11, 12, 13)  # what J, Q and K count as
FACES = "JQK"
_ONE_VALUE = 0.2  # share of random rules with one value for all three, so that both wordings are read

Ranks = tuple[int, ...]
Rule = tuple[int, int, int]


def stream(chat: ChatFormat, *, documents: int, seed: int) -> Callable[[int], list[Segment]]:
    """The segments of each update, in the proportions of `SHARES`. Depends on (seed, step) alone."""
    kinds = spread(SHARES, documents)

    def update(step: int) -> list[Segment]:
        pen = Pen(chat, random.Random(seed_of(seed, "nano-base", step)))
        return [getattr(pen, kind)() for kind in kinds]

    return update


def spread(shares: Mapping[str, int], documents: int) -> list[str]:
    """One kind per document, in proportion to the shares and evenly mixed: each kind its share of documents, or one more."""
    total = sum(shares.values())
    if documents < total:
        shares = _largest_remainders(shares, documents)
        total = documents
    slots = [((place + 0.5) / share, kind) for kind, share in shares.items() for place in range(share)]
    kinds = [kind for _, kind in sorted(slots)]
    return [kinds[index * total // documents] for index in range(documents)]


def _largest_remainders(shares: Mapping[str, int], documents: int) -> dict[str, int]:
    """Whole numbers in proportion to the shares, `documents` in all: rounded down, then one more where most was cut off."""
    exact = {kind: share * documents / sum(shares.values()) for kind, share in shares.items()}
    counts = {kind: int(number) for kind, number in exact.items()}
    most_cut = sorted(exact, key=lambda kind: counts[kind] - exact[kind])
    for kind in most_cut[: documents - sum(counts.values())]:
        counts[kind] += 1
    return counts


class Pen:
    """Writes documents. Draws everything from `draw`."""

    def __init__(self, chat: ChatFormat, draw: random.Random):
        self.chat = chat
        self.draw = draw
        self.ids: list[int] = []
        self.learned: list[bool] = []
        self.pictures: list[np.ndarray] = []

    # ------------------------------------------------------------ kinds
    def num(self) -> Segment:
        """Learned: the formula."""
        before, formula = _parted(self._right((), self._numeric_hand()))
        self._begin([])
        self._write(before, learn=False)
        self._reply(formula)
        return self._finished()

    def retry(self) -> Segment:
        """Learned: the verdicts, and the whole last answer. A policy that cannot copy its hand again cannot revise."""
        hand = self._numeric_hand()
        self._begin([])
        for _ in range(self.draw.randint(1, 3)):
            self._fail((), hand, learn_verdict=True)
        self._reply(_without_cards(self._right((), hand)))
        return self._finished()

    def map(self) -> Segment:
        """Learned: cards and numbers, but not how the list ends. Else it teaches to stop after a face card."""
        rule = self._rule(share_id=0.1, share_ood=0.1)
        ranks = self._train_ranks(lambda: self.draw.randint(1, 13) if self.draw.random() < 0.5 else self._face())
        cards = _cards(ranks)
        self._ask(rule, cards)
        numbers = _numbers(ranks, rule)
        if self.draw.random() < 0.3:
            self._misread(cards, ranks, numbers)
        answer = prompts.answer(cards, tuple(map(str, numbers)), "", TARGET)
        self._write(answer.partition('],\n  "formula"')[0], learn=True)
        return self._finished()

    def bridge(self) -> Segment:
        """Learned: the last answer."""
        rule = self._rule()
        ranks = self._train_ranks(lambda: self.draw.randint(1, 10), solvable=True)
        cards = _cards(ranks)
        self._ask(rule, cards)
        if self.draw.random() < 0.35:
            for _ in range(self.draw.randint(1, 3)):
                self._fail(cards, ranks, learn_verdict=False)
        self._reply(self._right(cards, ranks))
        return self._finished()

    # ------------------------------------------------------------ parts
    def _ask(self, rule: Rule, cards: tuple[str, ...]) -> None:
        self._begin(self.chat.prompt_ids([Message(role="user", text=question(rule, cards))]))

    def _right(self, cards: tuple[str, ...], numbers: Ranks) -> str:
        formula = self.draw.choice(hands.preferred(tuple(sorted(numbers)), TARGET))
        return prompts.answer(cards, tuple(map(str, numbers)), formula, TARGET)

    def _fail(self, cards: tuple[str, ...], numbers: Ranks, *, learn_verdict: bool) -> None:
        hand = _hand(numbers)
        formula = mistakes.wrong_formula(hand, TARGET, self.draw.getrandbits(48))
        answer = prompts.answer(cards, hand.numbers, formula, TARGET)
        self._write(answer if cards else _without_cards(answer), learn=False)
        self._hear(verifier.paper(formula, hand, TARGET).feedback, learn=learn_verdict)

    def _misread(self, cards: tuple[str, ...], ranks: Ranks, numbers: Ranks) -> None:
        """The numbers under another rule, and that they are wrong. Without a face card there is nothing to misread."""
        seen = _numbers(ranks, self._rule())
        faults = verifier.number_faults(list(map(str, seen)), _hand(numbers))
        if not faults:
            return
        answer = prompts.answer(cards, tuple(map(str, seen)), "", TARGET)
        self._write(answer.partition('],\n  "formula"')[0] + "]", learn=False)
        self._hear(prompts.sentence(faults), learn=False)

    def _hear(self, feedback: str, *, learn: bool) -> None:
        glue = self.chat.feedback_ids(Message(role="user", text=f"{prompts.FAILED}{feedback}"))
        self._add([self.chat.end_id], learn=False)
        self._add(glue, learn=learn)

    def _reply(self, text: str) -> None:
        self._add(self.chat.reply_ids(text), learn=True)

    def _begin(self, ids: list[int]) -> None:
        self.ids, self.learned, self.pictures = [], [], []
        self._add(ids or [self.chat.tokenizer.bos_token_id], learn=False)

    def _write(self, text: str, *, learn: bool) -> None:
        self._add(self.chat.encode(text), learn=learn)

    def _add(self, ids: list[int] | tuple[int, ...], *, learn: bool) -> None:
        self.ids += ids
        self.learned += [learn] * len(ids)

    def _finished(self) -> Segment:
        return plain_segment(self.ids, self.learned, self.pictures)

    # ------------------------------------------------------------ draws
    def _numeric_hand(self) -> Ranks:
        return self._train_ranks(lambda: self.draw.randint(1, 13), solvable=True)

    def _train_ranks(self, card: Callable[[], int], *, solvable: bool = False) -> Ranks:
        """Four draws of `card`, repeated until they are a hand that may be shown."""
        while True:
            ranks = (card(), card(), card(), card())
            key = tuple(sorted(ranks))
            if not _is_held_out(key) and (not solvable or hands.preferred(key, TARGET)):
                return ranks

    def _face(self) -> int:
        return self.draw.randint(11, 13)

    def _rule(self, *, share_id: float = 0.0, share_ood: float = 0.0) -> Rule:
        """A random rule; the two that are tested come up with their shares alone."""
        chance = self.draw.random()
        if chance < share_id:
            return ID_RULE
        if chance < share_id + share_ood:
            return OOD_RULE
        while True:
            jack, queen, king = (self.draw.randint(1, 13) for _ in FACES)
            rule = (jack, jack, jack) if self.draw.random() < _ONE_VALUE else (jack, queen, king)
            if rule not in (ID_RULE, OOD_RULE):
                return rule


def question(rule: Rule, cards: tuple[str, ...]) -> str:
    """The task's own question under any rule."""
    before, after = prompts.question(TARGET, "ten")
    return under(rule, f"{before}{prompts.card_list(cards)}{after}")


def under(rule: Rule, asked: str) -> str:
    """A question that states the rule `ten`, stating another."""
    jack, queen, king = rule
    several = f"'J', 'Q', and 'K' count as '{jack}', '{queen}', and '{king}' respectively."
    note = f"'J', 'Q', and 'K' count as '{jack}'." if jack == queen == king else several
    return asked.replace(prompts.FACE_MESSAGES["ten"], note)


def _cards(ranks: Ranks) -> tuple[str, ...]:
    return tuple(hands.WRITTEN[hands.RANKS[rank - 1]] for rank in ranks)


def _numbers(ranks: Ranks, rule: Rule) -> Ranks:
    return tuple(rule[rank - hands.FACE] if rank >= hands.FACE else rank for rank in ranks)


def _hand(numbers: Ranks) -> verifier.Hand:
    written = tuple(map(str, numbers))
    return verifier.Hand(tuple(sorted(numbers)), written, {number: written.count(number) for number in written})


def _without_cards(answer: str) -> str:
    """From the end of the empty card list on."""
    return answer[answer.index("'],") :]


def _parted(answer: str) -> tuple[str, str]:
    """`'],  "number": [1, 2, 3, 4],  "formula": "` and the rest."""
    before, mark, formula = _without_cards(answer).partition('"formula": "')
    return before + mark, formula


@cache
def _is_held_out(ranks: Ranks) -> bool:
    return hands.is_held_out(ranks)
