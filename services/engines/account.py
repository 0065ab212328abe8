"""What an engine's replica tells of its work: numbers to Prometheus, and a line in the log for each completion."""

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from cluster import metrics
from cluster.metrics import DIGEST_CHARACTERS, Meters
from cluster.rollout import Quarantined
from cluster.verifiers import PoolStats
from services.engines.leases import Leases
from trainers.checkpoints import Checkpoint
from trainers.episode import Episode

USAGE_ALONE = '"choices":[]'  # in the event that vLLM sends last, where it was asked for the usage of a stream

logger = logging.getLogger("viter.replica")


class Account:
    """The account of one engine. Gauges are shown by `show`, which is called again and again."""

    def __init__(self, meters: Meters):
        self._meters = meters
        meters.add(metrics.ENGINE_FAILURES, 0)
        for how in ("in_place", "start"):
            meters.add(metrics.ENGINE_SWAPS, 0, how=how)
            meters.add(metrics.ENGINE_LOADING, 0, how=how)

    def show(self, leases: Leases) -> None:
        self._meters.set(metrics.ENGINE_REQUESTS, leases.users)
        self._meters.set(metrics.ENGINE_WAITING, leases.waiting)
        if leases.held is not None:
            self._meters.set(metrics.ENGINE_HOLDS, 1, digest=leases.held[:DIGEST_CHARACTERS])

    def loaded(self, checkpoint: Checkpoint, seconds: float, *, in_place: bool) -> None:
        how = "in_place" if in_place else "start"
        self._meters.add(metrics.ENGINE_SWAPS, how=how)
        self._meters.observe(metrics.ENGINE_SWAP_SECONDS, seconds, how=how)
        self._meters.add(metrics.ENGINE_LOADING, seconds, how=how)
        logger.info("holds %s after %.3f s", checkpoint.name, seconds)

    def died(self) -> None:
        self._meters.add(metrics.ENGINE_FAILURES)

    def item(self, seconds: float) -> None:
        """An evaluation's episode is over."""
        self._meters.observe(metrics.EVALUATION_ITEM_SECONDS, seconds)

    def played(self, outcome: Episode | Quarantined) -> None:
        if isinstance(outcome, Episode):
            prompt = outcome.usage.prefill_tokens - outcome.usage.cached_tokens
            self._tokens("episode", prompt, outcome.usage.sampled_tokens)

    def completed(self, route: str, checkpoint: Checkpoint, usage: dict[str, Any] | None, seconds: float) -> None:
        """A completion was given; `usage` as OpenAI has it."""
        prompt, sampled = ((usage or {}).get(name) or 0 for name in ("prompt_tokens", "completion_tokens"))
        self._tokens("completion", prompt, sampled)
        told = {"prompt_tokens": prompt, "completion_tokens": sampled, "seconds": round(seconds, 4)}
        digest = checkpoint.digest[:DIGEST_CHARACTERS]
        logger.info("%s by %s", route, checkpoint.name, extra={"endpoint": route, "digest": digest, **told})

    def _tokens(self, work: str, prompt: int, sampled: int) -> None:
        self._meters.add(metrics.TOKENS, prompt, work=work, kind="prompt")
        self._meters.add(metrics.TOKENS, sampled, work=work, kind="sampled")


class VerifierAccount:
    """The account of a service's verifiers: seconds as they come, failures by their growth."""

    def __init__(self, meters: Meters):
        self._meters = meters
        self._told = {"timeout": 0, "crashed": 0}
        for status in self._told:
            meters.add(metrics.VERIFY_FAILURES, 0, status=status)

    def judged(self, seconds: float) -> None:
        """One call was answered."""
        self._meters.observe(metrics.VERIFY_SECONDS, seconds)

    def show(self, stats: PoolStats) -> None:
        for status, now in (("timeout", stats.timeouts), ("crashed", stats.deaths)):
            self._meters.add(metrics.VERIFY_FAILURES, now - self._told[status], status=status)
            self._told[status] = now


def with_usage(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a stream, with its usage asked for; any other as it is."""
    options = body.get("stream_options") or {}
    if body.get("stream") is not True or not isinstance(options, dict):
        return body
    return {**body, "stream_options": {**options, "include_usage": True}}


class CountedStream:
    """The events of a stream. What it used is in `usage` once it has ended, and told to the client only on request."""

    def __init__(self, events: AsyncGenerator[str, None], body: dict[str, Any]):
        self.usage: dict[str, Any] | None = None
        self._events = events
        self._is_wanted = bool((body.get("stream_options") or {}).get("include_usage"))

    async def pass_on(self) -> AsyncGenerator[str, None]:
        async with aclosing(self._events) as events:
            async for event in events:
                if USAGE_ALONE in event:
                    self.usage = json.loads(event.removeprefix("data: ")).get("usage")
                    if not self._is_wanted:
                        continue
                yield event
