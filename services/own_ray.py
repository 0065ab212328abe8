"""A Ray of the service's own on this machine: what it reserves, and the dashboard that takes training jobs.

Ray asks for a token on every port of a cluster that it starts in a process (`~/.ray/auth_token`, readable by its owner
alone), the dashboard's included, and the dashboard listens on this machine alone.
"""

import contextlib
import functools
import math
import os
from collections.abc import Iterator
from typing import Any

import ray
from ray._private import parameter

from cluster.connection import OVERSUBSCRIPTION
from services import ingress, port
from services.config import ServiceConfig
from services.engines.deployment import VERIFIER_CPUS
from services.http.guard import BODY_LIMIT_VARIABLE, BODY_SECONDS_VARIABLE, REQUESTS_VARIABLE

LOCALHOST = "127.0.0.1"
SERVING_STORE_BYTES = 256 << 20  # requests and items are small; a larger one would only take memory from engines
TRAINING_STORE_BYTES = 1 << 30  # episodes and weights of a run


def begin(config: ServiceConfig, quiet: dict[str, Any]) -> None:
    """Start Ray in this process with room for the service and, where it trains here, for a run beside it.

    Raises:
        ConfigError: `metrics_port` is taken.
    """
    if config.metrics_port is not None:
        port.check_free("0.0.0.0", config.metrics_port, option="--metrics-port")
    # Serve reads these where it starts; on a cluster that runs already they belong into its environment
    os.environ.update({name: value for name, value in ingress.EVERYWHERE.items() if name not in os.environ})
    os.environ.update(ingress.here())
    os.environ[BODY_LIMIT_VARIABLE] = str(config.limits.body_bytes)
    os.environ[BODY_SECONDS_VARIABLE] = str(config.limits.body_s)
    os.environ[REQUESTS_VARIABLE] = str(config.limits.requests)
    trains = config.training and config.jobs is None
    with _job_agent_on_a_free_port():
        ray.init(
            "local",  # else it joins a cluster that somebody else started on this machine
            num_cpus=logical_cpus(config, trains=trains),
            include_dashboard=trains,
            dashboard_host=LOCALHOST,
            object_store_memory=TRAINING_STORE_BYTES if trains else SERVING_STORE_BYTES,
            _metrics_export_port=config.metrics_port,
            **quiet,
        )


def logical_cpus(config: ServiceConfig, *, trains: bool) -> int:
    """What Ray promises: the service's own actors and, for a run beside them, what a run alone would find here."""
    cores = os.cpu_count() or 1
    needed = math.ceil(config.replicas * (config.replica_cpus + config.verifiers * VERIFIER_CPUS) + 1)
    return needed + OVERSUBSCRIPTION * cores if trains else max(cores, needed)


@contextlib.contextmanager
def _job_agent_on_a_free_port() -> Iterator[None]:
    """`ray.init` gives Ray's job agent the port 52365, with no argument for another; a second Ray there would take no jobs."""
    params = parameter.RayParams
    setattr(parameter, "RayParams", functools.partial(params, dashboard_agent_listen_port=0))  # noqa: B010  # mypy: a class
    try:
        yield
    finally:
        setattr(parameter, "RayParams", params)  # noqa: B010
