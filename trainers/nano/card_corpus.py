"""The corpus of a nano base model that sees: GeneralPoints as in `base_corpus`, its cards in pictures.

    num, retry   as there, numbers alone                                  the skill
    map          a picture under a random stated rule -> cards -> numbers   seeing, and reading the rule
    bridge       a picture without face cards -> the whole answer           the whole form

The pictures are those of the run's own environment, so its other suits, fonts and scenes stay for the OOD suites.
"""

import random
from collections.abc import Callable
from typing import cast

from envs.base import seed_of
from envs.general_points import hands, prompts
from envs.general_points.options import GeneralPointsOptions
from envs.task import Environment, Message, Sighted
from trainers.chat import ChatFormat
from trainers.episode import Segment
from trainers.nano.base_corpus import TARGET, Pen, Rule, spread, under

SHARES = {"num": 96, "retry": 12, "map": 48, "bridge": 44}
"""Documents of each kind in an update of 200."""
MISSEEN = 0.3  # of the failed attempts in a bridge: a card is misread, where the others are wrong in their formula


def stream(environment: Environment, chat: ChatFormat, *, documents: int, seed: int) -> Callable[[int], list[Segment]]:
    """The segments of each update, in the proportions of `SHARES`. Depends on (seed, step) alone."""
    kinds = spread(SHARES, documents)

    def update(step: int) -> list[Segment]:
        pen = SeeingPen(chat, random.Random(seed_of(seed, "nano-base", step)), environment)
        return [getattr(pen, kind)() for kind in kinds]

    return update


class SeeingPen(Pen):
    """A pen whose questions show the cards instead of writing them."""

    def __init__(self, chat: ChatFormat, draw: random.Random, environment: Environment):
        super().__init__(chat, draw)
        self._image = cast(Sighted, environment).image
        self._suits = hands.SUITS[cast(GeneralPointsOptions, environment.options).suits]

    def _ask(self, rule: Rule, cards: tuple[str, ...]) -> None:
        key = "-".join(self.draw.choice(self._suits) + ("T" if card == "10" else card) for card in cards)
        picture = self._image(key)
        asked = Message(role="user", text=under(rule, prompts.question_of_picture(TARGET, "ten")), images=(key,))
        self._begin(self.chat.expanded(self.chat.prompt_ids([asked]), [picture]))
        self.pictures = [picture]

    def _fail(self, cards: tuple[str, ...], numbers: tuple[int, ...], *, learn_verdict: bool) -> None:
        if not cards or self.draw.random() >= MISSEEN:
            super()._fail(cards, numbers, learn_verdict=learn_verdict)
            return
        place = self.draw.randrange(4)
        other = self.draw.choice([card for card in ("A", *map(str, range(2, 11))) if card != cards[place]])
        seen = (*cards[:place], other, *cards[place + 1 :])
        formula = self.draw.choice(hands.preferred(tuple(sorted(numbers)), TARGET))
        self._write(prompts.answer(seen, tuple(map(str, numbers)), formula, TARGET), learn=False)
        self._hear(prompts.WRONG_CARDS, learn=learn_verdict)
