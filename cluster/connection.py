"""The cluster a driver works on: the one RAY_ADDRESS names, or one of its own on this machine."""

import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster import interrupts, placement

OVERSUBSCRIPTION = 4  # logical CPUs of a cluster of our own, at most, per core of this machine


@contextlib.contextmanager
def connected(plan: placement.Plan, tell: Callable[[str], None]) -> Iterator[None]:
    """Connected to the cluster that RAY_ADDRESS names, or to one of our own on this machine, with room for the plan."""
    import ray

    if ray.is_initialized():
        yield
        return
    _quiet()
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level="error")
    else:
        ray.init(
            "local", num_cpus=_logical_cpus(plan), include_dashboard=False, log_to_driver=False, logging_level="error",
            object_store_memory=2**30, _temp_dir=str(Path(tempfile.gettempdir()) / "viter-ray"),
        )  # fmt: skip
    interrupts.listen()
    try:
        placement.wait_for(plan, tell=tell)
        yield
    finally:
        ray.shutdown()


def _logical_cpus(plan: placement.Plan) -> int:
    """CPUs that a cluster of our own declares: what the plan needs, up to a few per core; stages share cores well."""
    cores = os.cpu_count() or 1
    needed = math.ceil(plan.cpus)
    if needed > cores * OVERSUBSCRIPTION:
        raise placement.CapacityError(
            f"placement: the run needs {needed} CPUs and this machine has {cores} cores, of which at most "
            f"{cores * OVERSUBSCRIPTION} CPUs are promised; lower placement.*_cpus or the numbers of workers, "
            "or name a cluster with --address"
        )
    return max(needed, cores)


def _quiet() -> None:
    """Infrastructure speaks into Ray's log files, not into the console."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
