"""`viter serve`: a service until it is interrupted, and what a person needs to talk to it."""

import contextlib
import sys
import threading

from cluster import interrupts
from services import app
from services.config import ServiceConfig
from services.console import Console


def run(config: ServiceConfig) -> None:
    """Start the service, say how to reach it, and wait for an interrupt."""
    console = Console()
    console.tell(f"starting the service of {config.store} on {config.host}:{config.port} (half a minute)")
    try:
        started = app.start(config)
        interrupts.listen()
        console.tell(f"serving at {started.url}, its API described at {started.url}/docs")
        console.tell(_access(config, started))
        console.tell(f"metrics for Prometheus: {app.metrics_url()}")
        _until_interrupted(console)
    finally:
        app.stop()


def _until_interrupted(console: Console) -> None:
    console.tell("Ctrl-C ends it.")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    console.tell("stopping")


def _access(config: ServiceConfig, started: app.Started) -> str:
    if config.auth == "none":
        return f"no token is asked for:\n  curl {started.url}/v1/models"
    path = config.state_directory / "service" / "token"
    # once, and to a person alone: what is not a terminal may be kept
    shown = f"a new token, not shown again: {started.token}\n" if started.token and sys.stdout.isatty() else ""
    return f'{shown}the token lies in {path}\n  curl -H "Authorization: Bearer $(cat {path})" {started.url}/v1/models'
