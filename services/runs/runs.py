"""Runs as resources: what the routes call. Plain asyncio over `Groups` and a `Cluster`; reads happen on threads."""

import asyncio
import logging
import time
from collections.abc import Mapping

from cluster.jobs import RunGoesOn
from envs.base import ConfigError, ViterError
from services.runs.groups import Groups, JobState, Row, RunGroup, RunList, RunMissing
from services.runs.jobs import Cluster
from services.runs.orders import RunOrder, config_of
from trainers.manifest import RUN_NAME

LISTING_AGE_S = 2.0  # a run is listed this soon; in between, a list costs no read of the store
STOPPING_S = 5.0  # a refusal to stop comes sooner; a stop itself takes until the run has ended
LOG_BYTES = 1 << 18  # of one answer, where nobody asks for another length

logger = logging.getLogger("viter.runs")


class TrainingOff(ConfigError):
    """This service takes no runs."""


class NoJob(ConfigError):
    """A run that is no Ray job as far as this service's cluster knows."""


class Runs:
    """The runs of one store. Without a cluster they are listed and not trained."""

    def __init__(self, store: str, cluster: Cluster | None):
        self._groups = Groups(store)
        self._cluster = cluster
        self._listed: tuple[float, list[RunGroup]] | None = None
        self._listing = asyncio.Lock()  # whoever lists first reads; those who come meanwhile wait for its answer
        self._ordering = asyncio.Lock()  # one submission at a time: the second of two for one run finds the first
        self._told = ""  # why jobs were not told last
        self._stopping: dict[str, asyncio.Task[None]] = {}  # ends when its job has; kept so that it is not collected

    async def page(self, limit: int, after: str | None) -> RunList:
        """Runs, the one that began last first. Raises RunMissing for an unknown `after`."""
        groups = await self._all()
        start = 0
        if after is not None:
            ids = [group.id for group in groups]
            if after not in ids:
                raise RunMissing(f"after: {after[:80]!r} is no run of this list")
            start = ids.index(after) + 1
        data = groups[start : start + limit]
        return RunList(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=start + limit < len(groups),
        )

    async def get(self, name: str) -> RunGroup:
        """One run. Raises RunMissing."""
        _check_name(name)
        jobs = await self._jobs()
        return await asyncio.to_thread(self._groups.get, name, jobs.get(name))

    async def metrics(self, name: str, stage: str, after_step: int) -> list[Row]:
        """The rows of a stage after a step, in order. Raises RunMissing."""
        await self.get(name)
        rows = await asyncio.to_thread(self._groups.metrics, name, stage)
        return [row for row in rows if row["step"] > after_step]

    async def events(self, name: str, limit: int) -> list[Row]:
        """The last events of a run, in order, each with its stage. Raises RunMissing."""
        await self.get(name)
        return (await asyncio.to_thread(self._groups.events, name))[-limit:]

    async def report(self, name: str) -> bytes:
        """The page of a finished run. Raises RunMissing."""
        _check_name(name)
        page = await asyncio.to_thread(self._groups.report, name)
        if page is None:
            raise RunMissing(f"run {name}: its store holds no report; `viter report {name}` writes one")
        return page

    async def order(self, order: RunOrder) -> RunGroup:
        """Train a run as a job; one that was cut off or stopped goes on.

        Raises:
            ConfigError: the order, and which key of it.
            RunGoesOn: the run is training.
            TrainingOff: nothing is trained here.
        """
        cluster = self._training()
        config = await asyncio.to_thread(config_of, order, self._groups.store)
        async with self._ordering:
            driver = await asyncio.to_thread(self._groups.driver, config.name)
            if driver is not None:
                raise RunGoesOn(f"run {config.name}: it is trained by {driver}; stop it first, or use another name")
            await asyncio.to_thread(cluster.submit, config)
            self._listed = None
        return await self.get(config.name)

    async def stop(self, name: str) -> RunGroup:
        """Ask a run to end in order, with a checkpoint: that takes until its present step is done.

        Raises:
            RunMissing: there is no such run.
            NoJob: it runs, but not as a job.
            TrainingOff: nothing is trained here.
        """
        cluster = self._training()
        group = await self.get(name)
        if group.job is None or not group.job.is_live:
            if group.driver:
                raise NoJob(f"run {name}: it is trained by {group.driver}, which is no job; interrupt it there")
            return group
        if name not in self._stopping:
            task = asyncio.create_task(asyncio.to_thread(cluster.stop, name), name=f"stop {name}")
            self._stopping[name] = task
            task.add_done_callback(lambda done: self._stopped(name, done))
        await asyncio.wait([self._stopping[name]], timeout=STOPPING_S)
        return await self.get(name)

    async def log(self, name: str, offset: int | None, tail: int | None) -> tuple[str, int]:
        """What the run's job printed, and the offset of its end, in characters.

        Args:
            offset: where an earlier answer ended; None is near the end.
            tail: at most this many last lines.
        Raises:
            RunMissing: there is no such run.
            NoJob: it was no job, or the cluster was restarted since.
        """
        group = await self.get(name)
        if group.job is None or self._cluster is None:
            raise NoJob(f"run {name}: this service's cluster knows no job of it, and logs are kept with jobs alone")
        text = await asyncio.to_thread(self._cluster.log, name)
        start = max(0, len(text) - LOG_BYTES) if offset is None else min(offset, len(text))
        end = min(len(text), start + LOG_BYTES)
        shown = text[start:end]
        return ("".join(shown.splitlines(keepends=True)[-tail:]) if tail else shown), end

    async def close(self) -> None:
        """Wait for nothing: a job that was asked to stop ends by itself."""
        for task in self._stopping.values():
            task.cancel()

    async def _all(self) -> list[RunGroup]:
        async with self._listing:
            if self._listed is None or time.monotonic() - self._listed[0] > LISTING_AGE_S:
                jobs = await self._jobs()
                self._listed = time.monotonic(), await asyncio.to_thread(self._groups.all, jobs)
            return self._listed[1]

    async def _jobs(self) -> Mapping[str, JobState]:
        """The jobs on this store, as far as a cluster tells: what lies in the store is told without."""
        if self._cluster is None:
            return {}
        try:
            jobs = await asyncio.to_thread(self._cluster.jobs)
        except ViterError as error:
            if str(error) != self._told:  # once, not at every look
                logger.warning("jobs are not told: %s", error)
            self._told = str(error)
            return {}
        return {name: job for name, job in jobs.items() if job.store in (None, self._groups.store.uri)}

    def _training(self) -> Cluster:
        if self._cluster is None:
            raise TrainingOff(
                "this service trains nothing: `training` is off in its config, or another Ray on its machine takes the "
                "jobs, as its log then says; name a cluster's dashboard in `jobs`, or use `viter submit --address`"
            )
        return self._cluster

    def _stopped(self, name: str, task: asyncio.Task[None]) -> None:
        self._stopping.pop(name, None)
        if not task.cancelled() and (error := task.exception()):
            logger.warning("run %s was not stopped: %s", name, error)


def _check_name(name: str) -> None:
    if not RUN_NAME.fullmatch(name):
        raise RunMissing(f"run {name[:80]!r}: no run has such a name; GET /v1/runs lists them")

