"""How a run or a service is told to end: Ctrl-C, or SIGTERM from Ray Jobs, Kubernetes and systemd. Both in order."""

import signal
import threading
from types import FrameType
from typing import NoReturn


class Preempted(KeyboardInterrupt):
    """SIGTERM: somebody else wants the machine. Ends what Ctrl-C ends; the work is to be taken up again."""


_preempted: Preempted | None = None  # once SIGTERM has come


def listen() -> None:
    """Make SIGINT raise KeyboardInterrupt and SIGTERM Preempted in the main thread; elsewhere nothing is changed.

    To be called after `ray.init` too: Ray takes SIGTERM for itself and dies of it on the spot, and a shell's background
    jobs start with SIGINT ignored.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _preempt)


def meant(interrupt: KeyboardInterrupt) -> KeyboardInterrupt:
    """The interrupt that a caught one was raised as: of one that finds Ray waiting, Ray makes a plain KeyboardInterrupt."""
    return _preempted or interrupt


def _preempt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  (how Python calls a handler)
    global _preempted
    _preempted = Preempted()
    raise _preempted
