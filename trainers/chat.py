"""Messages to token ids, once, and replies back to text: the only user of a tokenizer.

    prompt ids ─► reply ids (drawn by the engine) ─► glue: feedback and the header of the next reply ─► reply ids …

A transcript only grows. What was sampled is kept as it was sampled; nothing is rendered or encoded a second time, so
the learner sees the very tokens the policy drew. That is sound only where the chat template extends its own prefix,
which `ChatFormat` checks. The placeholder of an image is expanded once, as the model's processor writes it (`eyes`).
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from envs.base import DataError
from envs.task import Message, Verdict
from trainers.episode import Segment, Turn
from trainers.eyes import Eyes

Pictures = Mapping[str, np.ndarray]
"""Images by key: [H, W, 3] uint8."""

_ASK = Message(role="user", text="first question")
_HEAR = Message(role="user", text="second question")
_HEAR_MORE = Message(role="user", text="third question")
_REPLIES = ("an answer", "<think>\nsome thought\n</think>\n\nan answer")


class ChatFormat:
    """The chat template and tokenizer of one model directory."""

    def __init__(
        self, tokenizer: Any, *, source: str, stop_ids: frozenset[int] = frozenset(), eyes: Eyes | None = None
    ):
        self.tokenizer = tokenizer
        self.source = source
        self.eyes = eyes
        """What looks at images; None where the model reads text alone."""
        self.banned_ids: tuple[int, ...] = (eyes.image_id,) if eyes else ()
        """Tokens that a reply may not hold: an image that is not there."""
        self.end_id = self._checked_end()
        """The token that ends a reply, as the template writes it."""
        also = {tokenizer.eos_token_id} - {None}
        self.stop_ids: tuple[int, ...] = tuple(sorted({self.end_id} | also | stop_ids))
        """Every token at which the engine stops, `end_id` among them."""
        self.feedback_ids = lru_cache(maxsize=4096)(self._feedback_ids)
        """`feedback_ids(message, …)`: what the template puts between the end token of a reply and the next reply."""

    @classmethod
    def load(cls, directory: Path | str) -> "ChatFormat":
        """The format of a Hugging Face directory.

        Raises:
            DataError: no tokenizer, no chat template, or one whose rendering does not extend its prefix.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(directory))
        except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{directory}: no tokenizer can be loaded from here ({reason})") from None
        if not tokenizer.chat_template:
            raise DataError(
                f"{directory}: the tokenizer has no chat template; use an instruct model, or add chat_template.jinja"
            )
        stop_ids = _generation_stop_ids(Path(directory))
        return cls(tokenizer, source=str(directory), stop_ids=stop_ids, eyes=Eyes.load(directory))

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The chat up to where the model speaks, each image as one placeholder (see `expanded`)."""
        return self.encode(self._render(messages))

    def expanded(self, ids: Sequence[int], pictures: Sequence[np.ndarray]) -> list[int]:
        """The ids with each image placeholder as the tokens that stand for its picture, in order.

        Raises:
            DataError: there are not as many placeholders as pictures.
        """
        if self.eyes is None:
            return list(ids)
        if (places := list(ids).count(self.eyes.image_id)) != len(pictures):
            raise DataError(
                f"{self.source}: {places} image placeholders for {len(pictures)} images; the text of a message may not "
                f"hold {self.tokenizer.decode([self.eyes.image_id])!r} itself, and the chat template must write it once an image"
            )
        waiting = iter(pictures)
        return [
            each
            for token in ids
            for each in (self.eyes.expansion(next(waiting)) if token == self.eyes.image_id else (token,))
        ]

    def reply_ids(self, text: str) -> list[int]:
        """A reply that somebody else wrote, as the model would have said it: its tokens, then the end token.

        Raises:
            DataError: it holds a token that no reply may hold.
        """
        ids = self.encode(text)
        if banned := set(ids) & set(self.banned_ids):
            raise DataError(
                f"{self.source}: a reply holds {self.tokenizer.decode(list(banned))!r}, which stands for an image"
            )
        return [*ids, self.end_id]

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a reply, without the token that stopped it. Special tokens inside it stay in sight."""
        said = ids[:-1] if len(ids) and ids[-1] in self.stop_ids else ids
        return self.tokenizer.decode(list(said), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _feedback_ids(self, *messages: Message) -> tuple[int, ...]:
        opening = self._render([_ASK]) + _REPLIES[0]
        full = self._render([_ASK, _assistant(_REPLIES[0]), *messages])
        return tuple(self.encode(full[len(opening) :])[1:])

    def _render(self, messages: Sequence[Message]) -> str:
        if self.eyes is None and any(message.images for message in messages):
            raise DataError(f"{self.source}: this model reads text alone; a task with images needs a vision model")
        chat = [{"role": message.role, "content": self._content(message)} for message in messages]
        return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    def _content(self, message: Message) -> Any:
        """Text; for a vision model the parts that its template expects, images first."""
        if self.eyes is None:
            return message.text
        return [*({"type": "image"} for _ in message.images), {"type": "text", "text": message.text}]

    def _checked_end(self) -> int:
        """The end token, once a probe conversation has shown that each rendering extends the one before it.

        Raises:
            DataError: it does not, or the reply's end is no special token.
        """
        for reply in _REPLIES:
            glues = [self._probe_glue(reply, rounds) for rounds in (1, 2)]
            if glues[0] != glues[1]:
                raise self._refusal("writes a later turn differently from an earlier one")
        end, *_ = glues[0]
        if end not in self.tokenizer.all_special_ids:
            raise self._refusal(f"ends a reply with {self.tokenizer.decode([end])!r}, which is no special token")
        return end

    def _probe_glue(self, reply: str, rounds: int) -> list[int]:
        """Ids that follow reply number `rounds` of the probe conversation, up to the next reply."""
        chat = [_ASK]
        for _ in range(rounds - 1):
            chat += [_assistant(reply), _HEAR_MORE]
        before = self._render(chat)
        full = self._render([*chat, _assistant(reply), _HEAR])
        if not full.startswith(before + reply):
            raise self._refusal("rewrites what was already said when the chat goes on")
        glue = self.encode(full[len(before + reply) :])
        if not glue or self.encode(full) != self.encode(before) + self.encode(reply) + glue:
            raise self._refusal("merges tokens across the end of a reply")
        return glue

    def _refusal(self, what: str) -> DataError:
        return DataError(
            f"{self.source}: the chat template {what}, so sampled tokens would not be the ones trained on; "
            "use a template whose rendering only appends (most instruct models), or edit chat_template.jinja"
        )


class Transcript:
    """One segment in the making: prompt, replies, feedback, all as the ids the model saw."""

    def __init__(self, chat: ChatFormat, messages: Sequence[Message], pictures: Pictures | None = None):
        """Args: pictures: of every image that the messages name."""
        self._chat = chat
        self.token_ids: list[int] = []
        self.turns: list[Turn] = []
        self.images: list[str] = []
        self.pictures: list[np.ndarray] = []
        """Pixels of `images`, in order of their placeholders."""
        self._append(chat.prompt_ids(messages), messages, pictures)
        self._replies: list[tuple[int, np.ndarray, np.ndarray]] = []  # start, log-probs, weight versions
        self._answer, self._finish_reason = "", ""

    def append_reply(
        self, reply_ids: Sequence[int], logp: Sequence[float], versions: int | Sequence[int], finish_reason: str
    ) -> str:
        """Add what the policy drew, the stop token included, and return it as text. A verdict must follow."""
        assert len(self._replies) == len(self.turns), "the reply before has no verdict yet"
        assert len(reply_ids) == len(logp)
        per_token = np.broadcast_to(np.asarray(versions, np.int32), (len(reply_ids),))
        self._replies.append((len(self.token_ids), np.asarray(logp, np.float32), per_token))
        self.token_ids.extend(reply_ids)
        self._answer, self._finish_reason = self._chat.decode(reply_ids), finish_reason
        return self._answer

    def append_verdict(
        self, verdict: Verdict, feedback: Message | None = None, pictures: Pictures | None = None
    ) -> None:
        """Close the turn; with `feedback` the chat goes on. A reply that was cut gets its end token, unsampled."""
        start = self._replies[-1][0]
        self.turns.append(
            Turn(
                start=start,
                stop=len(self.token_ids),
                reward=verdict.reward,
                status=verdict.status,
                answer=self._answer,
                feedback=verdict.feedback,
                finish_reason=self._finish_reason,
            )
        )
        if feedback is None:
            return
        has_ended = len(self.token_ids) > start and self.token_ids[-1] == self._chat.end_id
        if not has_ended:
            self.token_ids.append(self._chat.end_id)
        self._append(self._chat.feedback_ids(feedback), [feedback], pictures)

    def _append(self, ids: Sequence[int], messages: Sequence[Message], pictures: Pictures | None) -> None:
        keys = [key for message in messages for key in message.images]
        seen = [(pictures or {})[key] for key in keys]
        self.token_ids += self._chat.expanded(ids, seen)
        self.images += keys
        self.pictures += seen

    def segment(self) -> Segment:
        """The finished segment. Feedback after the last turn, if any, is part of it and not sampled."""
        assert len(self._replies) == len(self.turns), "the last reply has no verdict yet"
        length = len(self.token_ids)
        sampled = np.zeros(length, bool)
        engine_logp = np.zeros(length, np.float32)
        weight_versions = np.full(length, -1, np.int32)
        for start, logp, versions in self._replies:
            stop = start + len(logp)
            sampled[start:stop] = True
            engine_logp[start:stop] = logp
            weight_versions[start:stop] = versions
        return Segment(
            token_ids=np.asarray(self.token_ids, np.int32),
            sampled=sampled,
            engine_logp=engine_logp,
            weight_versions=weight_versions,
            turns=tuple(self.turns),
            images=tuple(self.images),
            pictures=tuple(self.pictures),
        )


def _assistant(text: str) -> Message:
    return Message(role="assistant", text=text)


def _generation_stop_ids(directory: Path) -> frozenset[int]:
    """End-of-text ids that the model's generation config adds to the tokenizer's own."""
    path = directory / "generation_config.json"
    if not path.is_file():
        return frozenset()
    try:
        ids = json.loads(path.read_text()).get("eos_token_id")
    except (ValueError, AttributeError):
        raise DataError(f"{path}: not a JSON object; copy the file from the model again, or remove it") from None
    return frozenset(ids if isinstance(ids, list) else [ids] if ids is not None else [])
