"""How a command of `viter` ends: an exit code, and a user's mistake as one sentence on standard error."""

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from cluster import interrupts
from envs.base import ViterError

EXIT_CODES = {
    "ConfigError": 2,       # a key, a type, a combination of settings
    "DataError": 3,         # a model, a checkpoint, a file
    "CapacityError": 4,     # the cluster has no room
    "DivergedError": 5,     # training left the rails
    "RetryableError": 75,   # worth trying again as it is
    "WorkersFailed": 75,    # rollout workers that died and died again
    "LeaseHeld": 75,        # another driver has the run
    "LeaseLost": 75,        # another driver took the run over
    "Preempted": 75,        # SIGTERM: `ray job stop`, a node that goes
    "KeyboardInterrupt": 130,
}  # fmt: skip
"""By class name, since naming the classes would import what defines them. 0 is success, 1 a bug."""


def exit_code(error: BaseException) -> int:
    """The exit code of an error, by the nearest of its classes that the table knows; 1 where it knows none."""
    return next((EXIT_CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in EXIT_CODES), 1)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turns a user's mistake and an interrupt into one line and an exit code. A bug keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        _finish(
            exit_code(interrupts.meant(interrupt)), "interrupted; the same command goes on from the newest checkpoint"
        )
    except BrokenPipeError:  # `viter verify | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except Exception as error:
        cause = getattr(error, "cause", None)  # Ray wraps what an actor raised
        told = cause if isinstance(cause, ViterError) else error
        if not isinstance(told, ViterError):
            if os.environ.get("VITER_JOB"):
                traceback.print_exc()
                _finish(1, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            raise
        _finish(exit_code(told), " ".join(str(told).split()))


def _finish(code: int, message: str) -> None:
    typer.echo(f"viter: {message}", err=True)
    if os.environ.get("VITER_JOB"):
        typer.echo(json.dumps({"viter_exit": code, "error": message}))
    raise typer.Exit(code) from None
