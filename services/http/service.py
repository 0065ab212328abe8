"""What the routes stand on, and the words that several of them share."""

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Protocol

from fastapi import Query

from cluster.verifiers import Judgement, Question
from services.engines.episodes import EpisodeEvent, EpisodeOrder
from services.engines.replica import Head
from services.evaluations.compare import Comparison
from services.evaluations.events import News
from services.evaluations.listing import EvaluationQuery
from services.evaluations.orders import Evaluation, EvaluationList, EvaluationOrder, Item, ItemList
from services.registry import Registry
from services.runs.runs import Runs
from trainers.checkpoints import Checkpoint

DIGEST_HEADER = "X-Checkpoint-Digest"
OVERTIME_S = 5.0  # a replica ends its work at the deadline; this much later it is taken for dead

Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str | None, Query(max_length=200)]


class EvaluationJobs(Protocol):
    """What the routes ask of the evaluation manager. See `evaluations.jobs.Evaluations`."""

    async def order(self, order: EvaluationOrder) -> Evaluation: ...

    async def get(self, evaluation_id: str) -> Evaluation: ...

    async def page(self, query: EvaluationQuery) -> EvaluationList: ...

    async def items(self, evaluation_id: str, limit: int, after: str | None) -> ItemList: ...

    async def item(self, evaluation_id: str, item: str) -> Item: ...

    async def news(self, evaluation_id: str, seen: int, status: str | None, wait_s: float) -> News: ...

    async def compare(self, first: str, second: str) -> Comparison: ...

    async def cancel(self, evaluation_id: str) -> Evaluation: ...


class Service(Protocol):
    """What the routes stand on."""

    @property
    def registry(self) -> Registry: ...

    @property
    def evaluations(self) -> EvaluationJobs: ...

    @property
    def runs(self) -> Runs: ...

    def complete(
        self, route: str, body: dict[str, Any], checkpoint: Checkpoint, deadline_s: float
    ) -> AsyncGenerator[Head | str, None]:
        """See `EngineReplica.complete`."""

    def episode(
        self, order: EpisodeOrder, checkpoint: Checkpoint, deadline_s: float
    ) -> AsyncGenerator[EpisodeEvent, None]:
        """See `EngineReplica.episode`."""

    async def judge(self, questions: Sequence[Question]) -> list[Judgement]:
        """Verdicts in order, from verifiers in processes of their own. A verifier's failure is a status."""

    async def is_engine_up(self) -> bool:
        """Whether a replica holds a checkpoint."""
