"""Runs as Ray jobs: submit, follow, stop with grace, and an exit code that is the driver's own.

A job is nothing but the same command line run elsewhere. Ray forgets its jobs with the cluster, so nothing here is
needed to resume: submitting the same run again goes on from the store.
"""

import asyncio
import logging
import os
import shlex
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.config import RunConfig
from cluster.job_outcome import outcome
from cluster.job_shipment import RUN_FILE, stage
from envs.base import ConfigError, ViterError

GRACE_S = 45  # a checkpoint in flight needs seconds; Ray's own grace of 3 s would cut it off
INTERRUPTED_EXIT = 130
AGAIN = "~"  # in no run's name
DASHBOARD_VARIABLE = "RAY_API_SERVER_ADDRESS"
POLL_S = 2.0
AGENT_WAIT_S = 90.0


_connecting = threading.Lock()  # the environment belongs to the whole process


class RetryableError(ViterError):
    """The outside world failed in a way that another try may mend."""


class RunGoesOn(ConfigError):
    """A run that is asked for while it is running."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run on a cluster."""

    id: str
    """Ray's: the run's name, and `NAME~2`, `NAME~3` of what was submitted of it again.

    Ray watches a job for a second beyond its end and takes another one of that id for the same, so no id comes twice.
    """
    client: Any


def submit(config: RunConfig, *, address: str) -> Job:
    """Start `config` as a job of the cluster at `address`. Where an earlier one of its name has ended, that resumes it.

    Raises:
        RetryableError: nobody answers at `address`.
        RunGoesOn: it is running there.
    """
    client = _connect(address)
    with _told(address):
        here = _is_here(client, address)
    config = _shared_store(config, here)
    with _told(address):
        earlier = _newest(client.list_jobs()).get(config.name)
        if earlier is not None and not earlier.status.is_terminal():
            raise RunGoesOn(
                f"run {config.name}: it is {earlier.status.value.lower()} at {address}; "
                f"stop it with `viter stop {config.name}` or give this one another name"
            )
        job_id = f"{config.name}{AGAIN}{_turn(earlier) + 1}" if earlier else config.name
        with tempfile.TemporaryDirectory(prefix="viter-job-") as staging:
            stage(config, Path(staging))
            _submit(
                client,
                entrypoint=f"{_python(here)} -m services.cli train {RUN_FILE}",
                submission_id=job_id,
                metadata={
                    "run": config.name,
                    "stages": ",".join(config.stages),
                    "steps": ",".join(str(getattr(config, stage).steps) for stage in config.stages),
                    "store": config.store.uri,
                },
                runtime_env={"working_dir": staging, "env_vars": _environment()},
            )
    return Job(job_id, client)


def _submit(client: Any, **job: Any) -> None:
    """Submit, waiting for a cluster that has only just started: its dashboard answers before its job agents do."""
    deadline = time.monotonic() + AGENT_WAIT_S
    while True:
        try:
            client.submit_job(**job)
            return
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def session(address: str) -> str:
    """The name that the cluster at `address` gave itself when it started."""
    client = _connect(address)
    with _told(address):
        name: str = client._do_request("GET", "/api/version").json()["session_name"]
        return name


def listed(address: str) -> dict[str, Any]:
    """What the cluster at `address` says of each job of ours, by the run's name."""
    client = _connect(address)
    with _told(address):
        return {run: info for run, info in _newest(client.list_jobs()).items() if "run" in (info.metadata or {})}


def _newest(infos: list[Any]) -> dict[str, Any]:
    """The job submitted last of each name, by the name."""
    submitted = sorted((info for info in infos if info.submission_id), key=_turn)
    return {info.submission_id.partition(AGAIN)[0]: info for info in submitted}


def _turn(info: Any) -> int:
    """How many jobs of its run were submitted up to this one."""
    turn = info.submission_id.partition(AGAIN)[2]
    return int(turn) if turn.isdigit() else 1


def log(job: Job) -> str:
    """Everything the job printed."""
    with _told(job.id):
        text: str = job.client.get_job_logs(job.id)
        return text


def find(name: str, *, address: str) -> Job:
    """The job of a run. Raises ConfigError where the cluster at `address` knows none of that name."""
    client = _connect(address)
    with _told(address):
        known = _newest(client.list_jobs())
    if name not in known:
        raise ConfigError(f"job {name}: unknown at {address}; it knows {', '.join(sorted(known)) or 'no jobs'}")
    return Job(known[name].submission_id, client)


def follow(job: Job, echo: Callable[[str], None]) -> int:
    """Print the job's log until it ends, and return what `outcome` says of it. An interrupt leaves the job running."""
    try:
        asyncio.run(_tail(job, echo))
    except KeyboardInterrupt:
        echo(f"the run goes on; stop it with: viter stop {job.id.partition(AGAIN)[0]}")
        return INTERRUPTED_EXIT
    except (OSError, RuntimeError):
        echo("the log broke off; waiting for the outcome")
    with _told(job.id):
        while not job.client.get_job_status(job.id).is_terminal():
            time.sleep(POLL_S)
        return outcome(job.client.get_job_info(job.id), job.client.get_job_logs(job.id))


def stop(job: Job) -> str:
    """Ask the job to end in order, and say what came of it. It is killed only after `GRACE_S`."""
    with _told(job.id):
        signalled = job.client.stop_job(job.id)
        status = job.client.get_job_status(job.id).value.lower()
    return (
        f"{job.id}: {'asked to stop; it has ' + str(GRACE_S) + ' s' if signalled else 'was not running'}; now {status}"
    )


async def _tail(job: Job, echo: Callable[[str], None]) -> None:
    async for lines in job.client.tail_job_logs(job.id):
        for line in lines.splitlines():
            echo(line)


def _environment() -> dict[str, str]:
    return {"RAY_JOB_STOP_WAIT_TIME_S": str(GRACE_S), "VITER_JOB": "1", "PYTHONUNBUFFERED": "1"}


def _shared_store(config: RunConfig, here: bool) -> RunConfig:
    """A store that outlives the job: a relative path means this directory on one machine, and nothing on another."""
    if "://" in config.store.uri or Path(config.store.uri).is_absolute():
        return config
    if here:
        uri = str(Path(config.store.uri).resolve())
        return config.model_copy(update={"store": config.store.model_copy(update={"uri": uri})})
    raise ConfigError(
        f"store.uri: {config.store.uri!r} is relative and would be lost with the job; "
        "name a directory that all nodes share or a bucket, e.g. --set store.uri=s3://bucket/runs"
    )


def _python(here: bool) -> str:
    """The interpreter of the job: this one on this machine, whatever the cluster's image calls `python` elsewhere."""
    return shlex.quote(sys.executable) if here else "python"


def _is_here(client: Any, address: str) -> bool:
    """Whether this machine is a node of the cluster: a loopback address may be a tunnel to another one.

    A cluster that has only just started does not know its nodes yet; it is asked again until it does.
    """
    if urlsplit(address).hostname not in ("127.0.0.1", "localhost", "::1"):
        return False
    deadline = time.monotonic() + AGENT_WAIT_S
    while time.monotonic() < deadline:
        if nodes := client._do_request("GET", "/nodes?view=hostNameList").json()["data"]["hostNameList"]:
            return socket.gethostname() in nodes
        time.sleep(POLL_S)
    raise RetryableError(f"{address}: the cluster names no nodes; wait until it has started")


def _connect(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    for talker in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private"):
        logging.getLogger(talker).setLevel(logging.ERROR)
    with _told(address), _naming(address):
        return JobSubmissionClient(address)


@contextmanager
def _naming(address: str) -> Iterator[None]:
    """Ray's client lets RAY_ADDRESS go before its argument, and this variable before both."""
    with _connecting:
        before = os.environ.get(DASHBOARD_VARIABLE)
        os.environ[DASHBOARD_VARIABLE] = address
        try:
            yield
        finally:
            if before is None:
                del os.environ[DASHBOARD_VARIABLE]
            else:
                os.environ[DASHBOARD_VARIABLE] = before


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Ray's own errors of the job API in one sentence."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except ViterError:
        raise
    except AuthenticationError:
        raise ConfigError(f"{where}: the cluster asks for its token; set RAY_AUTH_TOKEN to it") from None
    except (ConnectionError, OSError) as error:
        raise RetryableError(
            f"{where}: no Ray dashboard answers ({type(error).__name__}); "
            "start the cluster or name it with --address http://HOST:8265"
        ) from None
    except RuntimeError as error:
        raise RetryableError(f"{where}: the Ray jobs API refused: {' '.join(str(error).split())[:300]}") from None
    except ValueError as error:
        raise ConfigError(
            f"--address {where}: {' '.join(str(error).split())[:200]}; write it as http://HOST:8265"
        ) from None
