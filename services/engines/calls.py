"""How replicas are asked: by digest, ended with whoever stops to listen, and asked again where one died."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import RequestCancelledError

from cluster.engine.reply import EngineDead
from services.engines import lifelines
from trainers.checkpoints import Checkpoint


def replicas_of(replica: Any, checkpoint: Checkpoint, *, stream: bool = True) -> Any:
    """A Serve handle for calls about a checkpoint: its digest says to the router where they go.

    What is not a stream goes by gRPC (`_by_reference` False), which takes a fifth of the time of a call of Ray; `told_once`
    hears of the end of a replica that gRPC does not hear of.
    """
    return replica.options(stream=stream, multiplexed_model_id=checkpoint.digest, _by_reference=stream)


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
        EngineDead: the replica is gone, and with it what it had to say.
    """
    try:
        with lifelines.HERE.held(answer):
            whole = await answer
    except asyncio.CancelledError:
        answer.cancel()
        raise
    except RequestCancelledError:
        raise EngineDead("the replica that was asked is gone") from None
    yield whole


async def asked_again(ask: Callable[[], AsyncGenerator[Any, None]]) -> AsyncGenerator[Any, None]:
    """What `ask` streams, from another replica where the first died before it had said anything."""
    for is_last in (False, True):
        has_begun = False
        try:
            async with aclosing(ask()) as answers:
                async for answer in answers:
                    has_begun = True
                    yield answer
            return
        except (RayActorError, EngineDead):
            if has_begun or is_last:
                raise
