"""Ports of a service: free before it starts, answered once it has."""

import contextlib
import errno
import random
import socket
import time
import urllib.request

from envs.base import ConfigError

UNCLAIMED = range(20_000, 30_000)
"""Ports that nobody else gives out: Linux takes those of connections from 32768, Ray its workers' below 20000, Serve its
gateways' from 30000. One that was free as it was chosen is so seconds later too, when what is to listen there has started."""


def check_free(host: str, port: int, *, option: str = "--port") -> None:
    """Return if something can listen on this port.

    Raises:
        ConfigError: nothing can, and why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be listened on ({error.strerror})"
            raise ConfigError(
                f"port: {port} on {host} {reason}; stop what listens there, or choose another with {option}"
            ) from None


def free_ports(count: int) -> list[int]:
    """So many ports of this machine that nothing listens on, out of those that nobody else gives out."""
    found: list[int] = []
    for port in random.SystemRandom().sample(UNCLAIMED, len(UNCLAIMED)):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise ConfigError(f"port: of {UNCLAIMED.start} to {UNCLAIMED.stop - 1} all are taken; stop what listens there")


def wait_until_answered(url: str, wait_s: float) -> None:
    """Return once `url` is answered with 200.

    Raises:
        ConfigError: it is not within `wait_s`.
    """
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise ConfigError(f"{url}: no answer within {wait_s:g} s of the start; the service's log says why")
