"""What happened to the rollouts of a run: sums for the metrics, events for events.jsonl. Pure bookkeeping."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from cluster.ledger import Fate, Order, Receipt
from cluster.quarantine import Case

SUMMED = ("turns", "prefill_tokens", "cached_tokens", "sampled_tokens", "generate_s", "verify_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, for events.jsonl."""

    kind: str
    time: float
    fields: dict[str, Any]
    case: Case | None = None
    """Of a quarantined episode: what a file of its own is made of."""


class Tally:
    """Sums since the start, and the events since somebody last asked."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._staleness: Counter[int] = Counter()  # episodes by the lag of their oldest token
        self._events: list[Event] = []
        self._asked: tuple[float, float] | None = (
            None  # when `slots_idle` was asked last, and the seconds played by then
        )

    def received(self, order: Order | None, receipt: Receipt, fate: Fate, worker: str) -> None:
        """A receipt came home. A refused one is counted as such alone: its episode comes home on another ticket."""
        self.count(**{f"episodes_{fate}": 1})
        if order is None:
            return
        if fate is Fate.QUARANTINED:
            version = receipt.outcome.weight_version if receipt.outcome else -1
            self.quarantined(
                Case(
                    step=order.step, index=order.index, reason=receipt.quarantined, time=time.time(), worker=worker,
                    weight_version=version, outcome=receipt.outcome,
                )
            )  # fmt: skip
            return
        self._staleness[order.step - receipt.oldest_version] += 1
        self.count(episodes_overflowed=receipt.overflowed, **{name: getattr(receipt, name) for name in SUMMED})

    def count(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self._sums[name] += amount  # type: ignore[assignment]

    def slots_idle(self, now: float, slots: int) -> float:
        """Share of the slots' time since the last call in which they held no episode, in 0…1; 0 at the first call.

        An episode counts with all its seconds when it comes home, so that one that crosses a call is counted late.
        """
        played = self._sums["generate_s"] + self._sums["verify_s"]
        (then, before), self._asked = self._asked or (now, played), (now, played)
        return max(0.0, 1.0 - (played - before) / (slots * (now - then))) if now > then else 0.0

    def quarantined(self, case: Case) -> None:
        """Told in short, with the case beside it."""
        told = {"worker": case.worker, "step": case.step, "index": case.index, "reason": case.reason}
        self._events.append(Event(kind="quarantined", time=case.time, fields=told, case=case))

    def event(self, kind: str, **fields: Any) -> None:
        self._events.append(Event(kind=kind, time=time.time(), fields=fields))

    def sums(self) -> dict[str, float]:
        return {**self._sums, **{f"staleness_{lag}": count for lag, count in sorted(self._staleness.items())}}

    def drain(self) -> list[Event]:
        events, self._events = self._events, []
        return events
