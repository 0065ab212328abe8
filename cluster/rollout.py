"""One episode as a plain coroutine: answer, hear the verdict, revise. Imports neither Ray nor vLLM."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from cluster.engine.reply import Reply
from envs.base import DataError, seed_of
from envs.task import Environment, Message, Sighted, State, Status, Task, Verdict
from trainers.chat import ChatFormat, Pictures, Transcript
from trainers.episode import Episode, Segment, Usage

Verify = Callable[[Task, State, str], Awaitable[tuple[Verdict, State]]]
Seeds = Callable[[int], int]


class Generate(Protocol):
    """What `play` asks of an engine; `Engine.generate` is one."""

    def __call__(
        self, token_ids: Sequence[int], *, seed: int, temperature: float, max_tokens: int, stop_ids: Sequence[int],
        pictures: Sequence[np.ndarray], banned_ids: Sequence[int],
    ) -> Awaitable[Reply]: ...  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How answers are drawn: from the whole distribution at `temperature`, or greedily at 0."""

    temperature: float = 1.0
    max_tokens: int = 512  # longest answer
    max_model_len: int = 1024  # history and answer together


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One turn as it happened: an answer, what the verifier said of it, and where that leads."""

    answer: str
    tokens: int
    finish_reason: str
    verdict: Verdict
    before: State
    after: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """An episode that no verifier could judge. It is counted, and never becomes a reward of 0."""

    task: Task
    status: Status  # TIMEOUT or CRASHED
    reason: str
    state: State  # that the answer was given in
    answer: str
    heard: tuple[Heard, ...] = ()  # the turns before
    weight_version: int = -1  # of the answer's first token
    step: int = 0
    index: int = 0


def turn_seeds(*counters: int | str) -> Seeds:
    """Seeds of the turns of one episode, for example of (run seed, step, index): the same whoever plays it, whenever."""
    return lambda turn: seed_of(*counters, "turn", turn)


async def play(
    task: Task,
    environment: Environment,
    chat: ChatFormat,
    generate: Generate,
    verify: Verify,
    *,
    decoding: Decoding,
    seeds: Seeds,
    step: int = 0,
    index: int = 0,
    worker: str = "",
    on_turn: Callable[[Heard], object] = lambda _: None,
) -> Episode | Quarantined:
    """Play one task to its end: answer, hear the verdict, revise.

    `generate` and `verify` are all it knows of engines and actors, so the same lines play in a rollout worker, in an
    evaluation replica, and in a test with two small functions. A history that leaves no room for an answer ends the
    episode: `truncated` and `overflowed`.

    Args:
        on_turn: told of each judged answer at once.
    Raises:
        DataError: not even the first answer has room.
    """
    state = environment.start(task)
    transcript = await _opening(chat, environment, task, state)
    segments: list[Segment] = []
    heard: list[Heard] = []
    meter = _Meter()
    verdict: Verdict | None = None
    while not state.is_over and (has_room := _has_room(transcript, decoding)):
        with meter.generating():
            reply = await generate(
                transcript.token_ids,
                seed=seeds(meter.turns),
                temperature=decoding.temperature,
                max_tokens=decoding.max_tokens,
                stop_ids=chat.stop_ids,
                pictures=transcript.pictures,
                banned_ids=chat.banned_ids,
            )
        meter.count(reply)
        answer = transcript.append_reply(reply.token_ids, reply.logp, reply.weight_versions, reply.finish_reason)
        with meter.verifying():
            verdict, after = await verify(task, state, answer)
        if not verdict.status.is_judgement:
            return Quarantined(
                task=task, status=verdict.status, reason=verdict.feedback, state=state, answer=answer, heard=tuple(heard),
                weight_version=reply.weight_versions[0], step=step, index=index,
            )  # fmt: skip
        heard.append(
            Heard(
                answer=answer, tokens=len(reply.token_ids), finish_reason=reply.finish_reason, verdict=verdict,
                before=state, after=after,
            )
        )  # fmt: skip
        on_turn(heard[-1])
        if after.position > state.position and not after.is_over:
            transcript.append_verdict(verdict)
            segments.append(transcript.segment())
            transcript = await _opening(chat, environment, task, after)
        else:
            await _close_turn(transcript, chat, environment, verdict, decoding)
        state = after
    if verdict is None:
        raise DataError(
            f"rollout.engine.max_model_len {decoding.max_model_len}: a prompt of {len(transcript.token_ids)} tokens and an "
            f"answer of {decoding.max_tokens} do not fit; raise it or lower ppo.answer_tokens"
        )
    if transcript.turns:
        segments.append(transcript.segment())
    return Episode(
        step=step,
        index=index,
        task=task,
        segments=tuple(segments),
        terminated=verdict.terminated,
        truncated=not verdict.terminated,
        overflowed=not state.is_over and not has_room,
        usage=meter.usage(),
        worker=worker,
    )


async def _opening(chat: ChatFormat, environment: Environment, task: Task, state: State) -> Transcript:
    messages = environment.prompt(task, state)
    return Transcript(chat, messages, await _look(environment, messages))


async def _look(environment: Environment, messages: Sequence[Message]) -> Pictures:
    """Every image that the messages name. Drawn beside the event loop, which has other episodes to serve."""
    keys = [key for message in messages for key in message.images]
    return {key: await asyncio.to_thread(cast(Sighted, environment).image, key) for key in keys}


def _has_room(transcript: Transcript, decoding: Decoding) -> bool:
    return len(transcript.token_ids) + decoding.max_tokens <= decoding.max_model_len


async def _close_turn(
    transcript: Transcript, chat: ChatFormat, environment: Environment, verdict: Verdict, decoding: Decoding
) -> None:
    """The verdict, and its words unless the task is solved: after a truncation the critic reads the value behind them."""
    feedback = None if verdict.terminated else environment.feedback(verdict)
    if feedback is not None:
        pictures = await _look(environment, [feedback])
        heard = chat.expanded(chat.feedback_ids(feedback), [pictures[key] for key in feedback.images])
        if len(transcript.token_ids) + 1 + len(heard) <= decoding.max_model_len:
            transcript.append_verdict(verdict, feedback, pictures)
            return
    transcript.append_verdict(verdict)


class _Meter:
    """Tokens and seconds of an episode in the making."""

    def __init__(self) -> None:
        self.turns = self.prefill = self.cached = self.sampled = 0
        self.generate_s = self.verify_s = 0.0

    def generating(self) -> "_Watch":
        return _Watch(self, "generate_s")

    def verifying(self) -> "_Watch":
        return _Watch(self, "verify_s")

    def count(self, reply: Reply) -> None:
        self.turns += 1
        self.prefill += reply.prompt_tokens - reply.cached_tokens
        self.cached += reply.cached_tokens
        self.sampled += len(reply.token_ids)

    def usage(self) -> Usage:
        return Usage(
            prefill_tokens=self.prefill,
            cached_tokens=self.cached,
            sampled_tokens=self.sampled,
            generate_s=self.generate_s,
            verify_s=self.verify_s,
        )


class _Watch:
    def __init__(self, meter: _Meter, name: str) -> None:
        self._meter, self._name = meter, name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        setattr(self._meter, self._name, getattr(self._meter, self._name) + time.perf_counter() - self._start)
