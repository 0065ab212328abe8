"""An evaluation's events for one listener, through whatever happens to the manager meanwhile."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator

from sse_starlette import ServerSentEvent

from services.evaluations.events import events_of
from services.http.problems import cause_of, status_of
from services.http.service import EvaluationJobs

KEEP_ALIVE_S = 15  # a comment this often, so that nothing in between takes the connection for dead
WAIT_S = 10.0  # each question waits this long for news, so that a listener who left is soon forgotten
RETRY_S = 1.0
PATIENCE_S = 120.0  # a manager is back within seconds

logger = logging.getLogger("viter.http")


async def followed(jobs: EvaluationJobs, evaluation_id: str, *, seen: int) -> AsyncGenerator[ServerSentEvent, None]:
    """What happens behind the first `seen` items, to the end. A manager that starts anew only delays it.

    What it cannot get over ends the stream, and the listener comes back with the last id it saw.
    """
    status: str | None = None
    heard_at = time.monotonic()
    while True:
        try:
            news = await jobs.news(evaluation_id, seen, status, WAIT_S)
        except Exception as error:
            if status_of(cause_of(error)) < 500 or time.monotonic() - heard_at > PATIENCE_S:
                logger.warning("the events of %s end: %s", evaluation_id, cause_of(error))
                return
            await asyncio.sleep(RETRY_S)
            continue
        heard_at = time.monotonic()
        for event in events_of(news, status=status):
            yield ServerSentEvent(json.dumps(event.data), event=event.event, id=event.id)
            if event.event == "end":
                return
        seen, status = news.seen, news.evaluation.status
