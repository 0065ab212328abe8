"""The Ray cluster that trains the runs of a service: its own, or the one whose dashboard the service names."""

from typing import Any, Protocol

from cluster import jobs
from cluster.config import RunConfig
from cluster.jobs import RetryableError
from services.runs.groups import JobState

MESSAGE_CHARACTERS = 300  # of what Ray says of a job, which ends with 20,000 of its log


class Cluster(Protocol):
    """What runs ask of a cluster. Every call blocks, and raises RetryableError where none answers."""

    def jobs(self) -> dict[str, JobState]:
        """Every job of ours, by the name of its run."""

    def submit(self, config: RunConfig) -> None:
        """Start the run as a job. Raises RunGoesOn."""

    def stop(self, name: str) -> None:
        """Ask a job to end in order; returns when it has."""

    def log(self, name: str) -> str:
        """Everything a job printed."""


class RayCluster:
    """A Ray cluster by its dashboard; None is the cluster that this process belongs to."""

    def __init__(self, address: str | None):
        self._named = address

    def jobs(self) -> dict[str, JobState]:
        return {name: _state(info) for name, info in jobs.listed(self._address()).items()}

    def submit(self, config: RunConfig) -> None:
        jobs.submit(config, address=self._address())

    def stop(self, name: str) -> None:
        jobs.stop(jobs.find(name, address=self._address()))

    def log(self, name: str) -> str:
        return jobs.log(jobs.find(name, address=self._address()))

    def _address(self) -> str:
        return self._named or _own_dashboard()


def _own_dashboard() -> str:
    """The dashboard of the cluster that this process belongs to, which is looked up anew: its head may have moved."""
    import ray
    from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD
    from ray.experimental.internal_kv import _internal_kv_get

    # Ray's own look-up asks twenty times, two seconds apart, before it says that there is none
    found: bytes | None = _internal_kv_get(DASHBOARD_ADDRESS, namespace=KV_NAMESPACE_DASHBOARD)
    address = f"http://{found.decode()}" if found else ""
    # a cluster without a dashboard names the port that it would have; another cluster's may answer there
    if not address or jobs.session(address) != ray.get_runtime_context().get_session_name():
        raise RetryableError(
            "this Ray cluster has no dashboard, which takes the jobs; start it with one, or name another in `jobs`"
        )
    return address


def _state(info: Any) -> JobState:
    said = info.metadata
    steps = said.get("steps", "").split(",")
    ended = info.end_time / 1000 if info.end_time else None
    words = " ".join((info.message or "").split())
    return JobState(
        id=info.submission_id,
        status=info.status.value.lower(),
        message=words[:MESSAGE_CHARACTERS] or None,
        started_at=info.start_time / 1000 if info.start_time else None,
        ended_at=ended,
        steps={stage: int(count) for stage, count in zip(said["stages"].split(","), steps, strict=False) if count},
        store=said.get("store"),
    )
