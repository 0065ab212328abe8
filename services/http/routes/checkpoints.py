"""The checkpoints of one run, and the names that people give them."""

from typing import Annotated, Literal

from fastapi import FastAPI, Path
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from services.http.service import DIGEST_HEADER, After, Limit, Service
from services.registry import ModelCard

Name = Annotated[str, Path(max_length=200)]


class CheckpointList(BaseModel):
    """Checkpoints of a run, newest first."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AliasOrder(BaseModel):
    """What an alias shall stand for."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: str = Field(min_length=1, max_length=200)
    """`run@step-000040`, or an alias, which is followed once, now."""


class AliasSet(BaseModel):
    """What an alias stands for."""

    object: Literal["alias"] = "alias"
    id: str
    checkpoint: str
    digest: str


class AliasDeleted(BaseModel):
    """An alias that stands for nothing any more."""

    object: Literal["alias"] = "alias"
    id: str
    deleted: Literal[True] = True


def add(routes: FastAPI, service: Service) -> None:
    @routes.get("/v1/runs/{run}/checkpoints", tags=["checkpoints"])
    async def list_checkpoints(run: Name, limit: Limit = 100, after: After = None) -> CheckpointList:
        """The intact checkpoints of one run, as `/v1/models` shows them."""
        cards = await service.registry.cards_of(run)
        ids = [card.id for card in cards]
        start = ids.index(after) + 1 if after in ids else (len(ids) if after else 0)
        page = cards[start : start + limit]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return CheckpointList(data=page, first_id=first, last_id=last, has_more=len(ids) > start + limit)

    @routes.put("/v1/runs/{run}/aliases/{alias}", tags=["checkpoints"])
    async def set_alias(run: Name, alias: Name, order: AliasOrder, response: Response) -> AliasSet:
        """Let `run@alias` stand for a checkpoint. `latest`, `init`, `best` and `best-ood` are set by the system alone."""
        checkpoint = await service.registry.set_alias(run, alias, order.checkpoint)
        response.headers[DIGEST_HEADER] = checkpoint.digest
        return AliasSet(id=f"{run}@{alias}", checkpoint=checkpoint.name, digest=checkpoint.digest)

    @routes.delete("/v1/runs/{run}/aliases/{alias}", tags=["checkpoints"])
    async def delete_alias(run: Name, alias: Name) -> AliasDeleted:
        """Let `run@alias` stand for nothing."""
        await service.registry.delete_alias(run, alias)
        return AliasDeleted(id=f"{run}@{alias}")
