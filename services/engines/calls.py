"""How replicas are asked: by digest, ended with whoever stops to listen, and asked again where one died."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from ray.exceptions import RayActorError

from cluster.engine.reply import EngineDead
from services.engines import lifelines
from trainers.checkpoints import Checkpoint


class Silent(EngineDead):
    """A replica is gone without a word, and its machine with it: no request is to blame."""


def replicas_of(replica: Any, checkpoint: Checkpoint, *, stream: bool = True) -> Any:
    """A Serve handle for calls about a checkpoint: its digest says to the router where they go.

    What is not a stream goes by gRPC (`_by_reference` False), some 4 ms sooner than by a call of Ray, and `told_once` hears of
    the end of a replica that gRPC does not hear of. `lifelines` needs the router in the caller's event loop for that, so where
    `services.ingress` is not in the environment every call is one of Ray.
    """
    is_router_here = os.environ.get("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP") == "0"
    by_reference = stream or not is_router_here
    return replica.options(stream=stream, multiplexed_model_id=checkpoint.digest, _by_reference=by_reference)


async def told(answers: Any) -> AsyncGenerator[Any, None]:
    """What a replica streams. Whoever stops to listen ends its work."""
    has_ended = False
    try:
        async for answer in answers:
            yield answer
        has_ended = True
    finally:
        if not has_ended:
            answers.cancel()


async def told_once(answer: Any) -> AsyncGenerator[Any, None]:
    """The one answer of a replica, as a stream of one. Whoever stops to listen ends its work.

    Raises:
        Silent: the replica is gone, and with it what it had to say.
    """
    with lifelines.HERE.held(answer) as line:
        try:
            whole = await answer
        except asyncio.CancelledError:
            answer.cancel()
            raise
        except Exception:
            if not line.is_cut:
                raise
            if (task := asyncio.current_task()) and task.cancelling():  # whoever listened stopped in the same moment
                raise asyncio.CancelledError from None
            raise Silent("the replica that was asked is gone") from None
    yield whole


async def asked_again(ask: Callable[[], AsyncGenerator[Any, None]]) -> AsyncGenerator[Any, None]:
    """What `ask` streams, from another replica where one died before it had said anything.

    A second time only: the request itself may be what kills engines. Replicas that fell silent do not count, as all of a
    machine's do at once.
    """
    has_died = False
    while True:
        has_begun = False
        try:
            async with aclosing(ask()) as answers:
                async for answer in answers:
                    has_begun = True
                    yield answer
            return
        except Silent:
            if has_begun:
                raise
        except (RayActorError, EngineDead):
            if has_begun or has_died:
                raise
            has_died = True
