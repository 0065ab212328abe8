"""Which evaluations a list shows, page by page; and the items of those that have ended, a few of them at hand."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.evaluations.orders import Evaluation, EvaluationList, Item, ItemList, State

STAGES = ("sft", "sft_branch", "ppo")
KEPT = 4  # evaluations whose items stay in memory


class EvaluationQuery(BaseModel):
    """Which evaluations are asked for."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: int = Field(20, ge=1, le=1000)
    """Most evaluations of a page."""
    after: str | None = Field(None, max_length=200)
    """The last id of the page before."""
    order: Literal["asc", "desc"] = "desc"
    """`desc`: newest first."""
    checkpoint: str | None = Field(None, max_length=200)
    """Those of this checkpoint, by name or digest."""
    run: str | None = Field(None, max_length=200)
    """Those of a run's checkpoints: of one stage, or of all stages of a run by the name in its file."""
    status: State | None = None
    """Those in this state."""

    def takes(self, evaluation: Evaluation) -> bool:
        """Whether it is one of those."""
        return (
            self.checkpoint in (None, evaluation.model, evaluation.digest)
            and (self.run is None or evaluation.run in (self.run, *(f"{self.run}-{stage}" for stage in STAGES)))
            and self.status in (None, evaluation.status)
        )


def page_of(evaluations: Sequence[Evaluation], query: EvaluationQuery, after: Evaluation | None) -> EvaluationList:
    """One page. `after` may be one that the query does not take, or no longer."""

    def place(evaluation: Evaluation) -> tuple[float, str]:
        return evaluation.created_at, evaluation.id

    is_newest_first = query.order == "desc"
    rows = sorted(filter(query.takes, evaluations), key=place, reverse=is_newest_first)
    if after is not None:
        rows = [e for e in rows if (place(e) < place(after) if is_newest_first else place(e) > place(after))]
    page = rows[: query.limit]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    return EvaluationList(data=page, first_id=first, last_id=last, has_more=len(rows) > query.limit)


def page_of_items(items: Sequence[Item], limit: int, after: str | None) -> ItemList:
    """One page of items, in the order they finished; empty where `after` is none of them."""
    ids = [item.id for item in items]
    start = 0 if after is None else ids.index(after) + 1 if after in ids else len(ids)
    page = list(items[start : start + limit])
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    return ItemList(data=page, first_id=first, last_id=last, has_more=len(items) > start + limit)


class ItemCache:
    """The items of evaluations that have ended, those that were asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, list[Item]] = OrderedDict()

    async def get(self, evaluation_id: str, read: Callable[[str], list[Item]]) -> list[Item]:
        if evaluation_id not in self._kept:
            self._kept[evaluation_id] = await asyncio.to_thread(read, evaluation_id)
        self._kept.move_to_end(evaluation_id)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[evaluation_id]
