"""Which texts a nano tokenizer holds as one token each: the fixed phrases of the tasks."""

import re

import envs
from envs.general_points import prompts
from envs.general_points.options import GeneralPointsOptions


def phrases() -> tuple[str, ...]:
    """The phrases of every installed environment that names some, cut at their numbers, and those of the usual target.

    A number stays a token of its own, so that a rule which says what a king counts as can be read.
    """
    named = [phrase for name in envs.names() for phrase in getattr(envs.factory(name), "phrases", ())]
    pieces = [piece for phrase in named for piece in re.split(r"\d+", phrase) if piece]
    return tuple(dict.fromkeys([*pieces, *_with_usual_target()]))


def _with_usual_target() -> list[str]:
    """The phrases of question and answer joined over the default target, which halves the length of a prompt."""
    target = GeneralPointsOptions().target
    note = prompts.FACE_MESSAGES["ten"]
    before, after = prompts.question(target, "ten")
    layout = prompts.answer((), (), "", target)
    return [*before.split(note), *after.split(note), layout[layout.index(f"={target}") :]]
