"""Which corpus makes the nano base model of an environment."""

from envs.base import ConfigError
from envs.task import Environment
from trainers.chat import ChatFormat
from trainers.corpus import Stream


def stream(environment: Environment, chat: ChatFormat, *, documents: int, seed: int) -> Stream:
    """The base corpus of the environment, in its modality.

    Raises:
        ConfigError: there is none for it.
    """
    sees = getattr(environment.options, "modality", "language") == "vision"
    if environment.name == "general_points" and sees:
        from trainers.nano import card_corpus

        return card_corpus.stream(environment, chat, documents=documents, seed=seed)
    if environment.name == "general_points":
        from trainers.nano import base_corpus

        return base_corpus.stream(chat, documents=documents, seed=seed)
    if environment.name == "virl":
        from trainers.nano import street_corpus

        return street_corpus.stream(environment, chat, documents=documents, seed=seed)
    raise ConfigError(
        f"sft.corpus: nano-base: there is none for environment {environment.name}; use `expert` or a file"
    )
