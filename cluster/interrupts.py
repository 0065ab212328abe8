"""How a run or a service is told to end: Ctrl-C, or SIGTERM from Ray Jobs, Kubernetes and systemd. Both in order."""

import signal
import threading


def listen() -> None:
    """Make SIGINT and SIGTERM raise KeyboardInterrupt in the main thread; elsewhere nothing is changed.

    To be called after `ray.init` too: Ray takes SIGTERM for itself and dies of it on the spot, and a shell's background
    jobs start with SIGINT ignored.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
