"""Where the service's lines go: into the files of Ray Serve's own logger, one per process, as JSON or as text.

Serve adds to each line the request id, which travels with every call between deployments, and names the replica.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler

SERVES = "ray.serve"  # the name of Serve's logger


def join_serve() -> None:
    """Let the loggers below `viter` write where Serve's logger writes in this process."""
    ours, serves = logging.getLogger("viter"), logging.getLogger(SERVES)
    ours.handlers, ours.propagate = serves.handlers, False  # the same list, so that Serve may configure it again
    ours.setLevel(serves.getEffectiveLevel())


@contextmanager
def kept() -> Iterator[None]:
    """Serve's logger goes on writing after what happens within: configuring logging anew closes every handler there is,
    and a closed MemoryHandler has lost its file."""
    handlers = [handler for handler in logging.getLogger(SERVES).handlers if isinstance(handler, MemoryHandler)]
    files = [handler.target for handler in handlers]
    try:
        yield
    finally:
        for handler, file in zip(handlers, files, strict=True):
            handler.setTarget(file)
