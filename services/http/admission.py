"""How many requests are answered at once: places of three kinds, so that none of them starves another.

    sampling   completions and episodes: what waits for the engine
    streams    events that are followed for as long as somebody listens
    calls      everything else: lists, orders, verdicts, cancellations

Health, the page and the documents take no place.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from services.config import LimitsConfig

Kind = Literal["sampling", "streams", "calls"]
SAMPLING = ("/v1/chat/", "/v1/completions", "/v1/episodes")


def kind_of(method: str, path: str) -> Kind:
    """What a request waits for."""
    if path.startswith(SAMPLING):
        return "sampling"
    return "streams" if method == "GET" and path.endswith("/events") else "calls"


def crowded(kind: Kind, most: int) -> str:
    """What is told when every place of a kind is taken."""
    return f"{most} requests of this kind ({kind}) are being answered, which is the limit; come back in a second"


class Places:
    """The places of one gateway. `holder` is a token's name; None where nobody is asked for one."""

    def __init__(self, limits: LimitsConfig):
        self._most: dict[Kind, int] = {"sampling": limits.requests, "streams": limits.streams, "calls": limits.calls}
        self._share = limits.token_share
        self.taken: Counter[Kind] = Counter()
        self._held: Counter[tuple[Kind, str | None]] = Counter()

    def refusal(self, kind: Kind, holder: str | None) -> str | None:
        """Why there is no place, if there is none."""
        most = self._most[kind]
        if self.taken[kind] >= most:
            return (
                f"{most} requests of this kind ({kind}) are being answered, which is the limit; come back in a second"
            )
        own = max(1, int(most * self._share))
        if holder is not None and self._held[kind, holder] >= own:
            return f"this token holds {own} of {most} places ({kind}), the most one token may; come back in a second"
        return None

    @contextmanager
    def place(self, kind: Kind, holder: str | None) -> Iterator[None]:
        """Hold a place within the context."""
        self.taken[kind] += 1
        self._held[kind, holder] += 1
        try:
            yield
        finally:
            self.taken[kind] -= 1
            self._held[kind, holder] -= 1
            if not self._held[kind, holder]:
                del self._held[kind, holder]  # a revoked token is forgotten
