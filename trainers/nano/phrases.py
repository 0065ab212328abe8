"""Which texts a nano tokenizer holds as one token each: the fixed phrases of the tasks."""

import re

import envs
from envs.general_points import prompts
from envs.general_points.options import GeneralPointsOptions


def phrases(environment: str = "general_points", *, sees: bool = False) -> tuple[str, ...]:
    """The phrases that an environment names, cut at their numbers; of GeneralPoints also joined over the usual target.

    A number stays a token of its own, so that a rule which says what a king counts as can be read.

    Args:
        sees: also the phrases that only the prompts with images hold.
    """
    factory = envs.factory(environment)
    named = [*getattr(factory, "phrases", ()), *(getattr(factory, "vision_phrases", ()) if sees else ())]
    pieces = [piece for phrase in named for piece in re.split(r"\d+", phrase) if piece]
    return tuple(dict.fromkeys([*pieces, *(_with_usual_target(sees) if environment == "general_points" else ())]))


def _with_usual_target(sees: bool) -> list[str]:
    """The phrases of question and answer joined over the default target, which halves the length of a prompt."""
    target = GeneralPointsOptions().target
    note = prompts.FACE_MESSAGES["ten"]
    before, after = prompts.question(target, "ten")
    layout = prompts.answer((), (), "", target)
    in_pictures = prompts.question_of_picture(target, "ten").split(note) if sees else []
    return [*before.split(note), *after.split(note), layout[layout.index(f"={target}") :], *in_pictures]
