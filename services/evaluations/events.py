"""What happens to an evaluation, as events that can be told again from the journal.

    state      it is queued, in progress, …        {"status", "counts"}
    item       one more is finished                {"id", "success", "attempts", "error"}
    progress   how far it is, after some items     {"status", "counts"}
    end        it has ended                        the evaluation with its results

An event's id is how many items the journal held by then, and `end` for the last one. A client that comes back with the
last id it saw gets what is missing, from any process that reads the journal: each item once.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from services.evaluations.orders import Evaluation, Item

END = "end"


class ItemNews(BaseModel):
    """A finished item in a few words."""

    id: str
    success: bool
    attempts: int
    error: str | None


class News(BaseModel):
    """What is new of an evaluation since `seen` items."""

    evaluation: Evaluation
    items: list[ItemNews]
    seen: int
    """Items that the reader knows once it has read these."""


class Event(BaseModel):
    """One event, as the stream tells it."""

    id: str
    event: str
    data: dict[str, Any]


def news_of(evaluation: Evaluation, items: list[Item], *, seen: int, most: int) -> News:
    """At most `most` of the items behind the first `seen`. A reader who saw more than there are is up to date."""
    fresh = items[seen : seen + most]
    told = [ItemNews(id=i.id, success=i.success, attempts=len(i.turns), error=i.error) for i in fresh]
    return News(evaluation=evaluation, items=told, seen=min(seen, len(items)) + len(fresh))


def events_of(news: News, *, status: str | None) -> Iterator[Event]:
    """The events of `news` for a reader who last heard of `status`."""
    evaluation = news.evaluation
    state = {"status": evaluation.status, "counts": evaluation.counts.model_dump()}
    before = news.seen - len(news.items)
    if evaluation.status != status and not evaluation.has_ended:
        yield Event(id=str(before), event="state", data=state)
    for place, item in enumerate(news.items, start=before + 1):
        yield Event(id=str(place), event="item", data=item.model_dump())
    if news.items:
        yield Event(id=str(news.seen), event="progress", data=state)
    if evaluation.has_ended and news.seen >= evaluation.counts.done:
        yield Event(id=END, event="end", data=evaluation.model_dump(mode="json"))


def events_in(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a stream's lines, as its reader sees them. Comments, which only keep it open, are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            key, _, value = line.partition(":")
            fields[key] = value.removeprefix(" ")
        elif "data" in fields:
            yield Event(id=fields["id"], event=fields["event"], data=json.loads(fields["data"]))
            fields = {}
