"""What SFT learns from: documents as segments, `sampled` being true on the tokens to learn.

    stream(config, environment, chat)(step) ─► the segments of one update

The segments of an update depend on (seed, step) alone: no iterator has a position, so a resumed run goes on exactly.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from envs.base import DataError, seed_of
from envs.corpus import Document, expert_document
from envs.task import Environment, Message, Sighted
from trainers.chat import ChatFormat, Pictures
from trainers.config import SftConfig
from trainers.episode import Segment

Stream = Callable[[int], list[Segment]]
ROLES = ("system", "user", "assistant")


def stream(config: SftConfig, environment: Environment, chat: ChatFormat) -> Stream:
    """The segments of each update: `config.documents` of them, for all learner ranks together.

    Raises:
        DataError: the corpus is a file that is missing or has a bad row.
    """
    if config.corpus == "nano-base":
        from trainers.nano import bases

        return bases.stream(environment, chat, documents=config.documents, seed=config.seed)
    if config.corpus == "expert":
        return _expert_stream(config, environment, chat)
    return _file_stream(config, chat)


def _expert_stream(config: SftConfig, environment: Environment, chat: ChatFormat) -> Stream:
    def update(step: int) -> list[Segment]:
        return [
            segment_of(
                expert_document(
                    environment, config.seed, step, index, deals=config.deals, retry_share=config.retry_share
                ),
                chat,
                environment,
            )
            for index in range(config.documents)
        ]

    return update


def _file_stream(config: SftConfig, chat: ChatFormat) -> Stream:
    documents = read_documents(Path(config.corpus))
    if config.deals is not None:
        documents = documents[: config.deals]

    def update(step: int) -> list[Segment]:
        places = range(step * config.documents, (step + 1) * config.documents)
        return [segment_of(documents[_shuffled(place, len(documents), config.seed)], chat) for place in places]

    return update


def _shuffled(place: int, count: int, seed: int) -> int:
    """Row number `place` of an endless reading in which every pass over the rows has its own order."""
    turn, offset = divmod(place, count)
    return int(np.random.default_rng(seed_of(seed, "pass", turn)).permutation(count)[offset])


def segment_of(document: Document, chat: ChatFormat, environment: Environment | None = None) -> Segment:
    """The document as the chat template renders it; learned are the trained replies, each with its end token.

    Args:
        environment: draws the images that the messages name.
    """
    messages, trained = document.messages, document.trained
    keys = [key for message in messages for key in message.images]
    pictures = {key: cast(Sighted, environment).image(key) for key in keys}
    replies = [place for place, message in enumerate(messages) if message.role == "assistant"]
    ids = chat.expanded(chat.prompt_ids(messages[: replies[0]]), _seen(messages[: replies[0]], pictures))
    sampled = [False] * len(ids)
    for place, following in zip(replies, [*replies[1:], len(messages)], strict=True):
        reply = chat.reply_ids(messages[place].text)
        heard = messages[place + 1 : following]
        heard_ids = (
            chat.expanded(chat.feedback_ids(*heard), _seen(heard, pictures)) if following < len(messages) else []
        )
        ids += [*reply, *heard_ids]
        sampled += [trained[place]] * len(reply) + [False] * len(heard_ids)
    return plain_segment(ids, sampled, [pictures[key] for key in keys])


def _seen(messages: Sequence[Message], pictures: Pictures) -> list[np.ndarray]:
    return [pictures[key] for message in messages for key in message.images]


def plain_segment(ids: Sequence[int], sampled: Sequence[bool], pictures: Sequence[np.ndarray] = ()) -> Segment:
    """A segment that no engine has drawn: ids, what is learned of them, and the pictures of its image placeholders."""
    return Segment(
        token_ids=np.asarray(ids, np.int32),
        sampled=np.asarray(sampled, bool),
        engine_logp=np.zeros(len(ids), np.float32),
        weight_versions=np.full(len(ids), -1, np.int32),
        turns=(),
        pictures=tuple(pictures),
    )


def read_documents(path: Path) -> list[Document]:
    """The conversations of a Parquet or JSON-lines file with an OpenAI `messages` column.

    Raises:
        DataError: naming the file, row and field that cannot be used.
    """
    documents = [_document(row, f"{path}: row {number}") for number, row in enumerate(_rows(path), start=1)]
    if not documents:
        raise DataError(f"{path}: the corpus has no rows; each row needs a `messages` list")
    return documents


def _rows(path: Path) -> Iterator[Any]:
    if path.suffix not in (".parquet", ".jsonl"):
        raise DataError(f"corpus {path}: write `expert`, `nano-base`, or a path that ends in .parquet or .jsonl")
    try:
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
            return
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield _json(line, f"{path}: row {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the corpus cannot be read ({error})") from None


def _parquet_rows(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        if "messages" not in table.schema_arrow.names:
            raise DataError(f"{path}: has the columns {table.schema_arrow.names}, and none is `messages`")
        for batch in table.iter_batches(columns=["messages"]):
            yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error})") from None


def _document(row: Any, where: str) -> Document:
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where}: `messages` is {_short(messages)}; it must be a list of messages with role and content"
        )
    read = [_message(message, f"{where}: messages[{place}]") for place, message in enumerate(messages)]
    roles = [message.role for message, _ in read]
    if "assistant" not in roles or roles[0] == "assistant":
        raise DataError(f"{where}: messages has the roles {roles}; a user must ask and an assistant reply")
    for place, pair in enumerate(pairwise(roles), start=1):
        if pair == ("assistant", "assistant"):
            raise DataError(f"{where}: messages[{place}].role is 'assistant' after another assistant; join the two")
    if not any(is_learned for _, is_learned in read):
        raise DataError(f"{where}: no reply is learned; give at least one assistant message a weight of 1")
    until = len(roles) - roles[::-1].index("assistant")  # nothing is learned after the last reply
    return Document(messages=tuple(m for m, _ in read[:until]), trained=tuple(learned for _, learned in read[:until]))


def _message(message: Any, where: str) -> tuple[Message, bool]:
    """The message, and whether it is learned: an assistant's, unless its `weight` is 0 as OpenAI's format has it."""
    fields = message if isinstance(message, dict) else {}
    role, content, weight = fields.get("role"), fields.get("content"), fields.get("weight")
    if role not in ROLES:
        raise DataError(f"{where}.role is {_short(role)}; allowed are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise DataError(f"{where}.content is {_short(content)}; it must be text")
    if weight not in (None, 0, 1):
        raise DataError(f"{where}.weight is {_short(weight)}; allowed are 0, context only, and 1, learned")
    return Message(role=role, text=content), role == "assistant" and weight != 0


def _short(value: Any) -> str:
    return f"{value!r:.60}"
