"""A sweep from its plan to its table: init once, then each value as an ordinary run, and all of them told together."""

from cluster import run_record
from cluster.config import RunConfig
from envs.base import ConfigError, ViterError
from services import train_run
from services.console import Console
from services.exits import EXIT_CODES, exit_code
from services.reports import measured
from services.sweeps import results
from services.sweeps.plan import Sweep, differences
from trainers.storage import open_store


def check(sweep: Sweep) -> None:
    """Raises ConfigError where the store already has a run of the sweep that was trained with other settings."""
    for config in sweep.runs:
        record = run_record.read(open_store(config.store.uri), config.name)
        differ = differences(record.config, config.model_dump(mode="json")) if record else []
        if differ:
            raise ConfigError(
                f"{config.name}: {config.store.uri} holds it with other settings: {differ[0]}; "
                "give this sweep a name of its own with --set name=NAME"
            )


def run(sweep: Sweep) -> None:
    """Train what is not finished, value by value, and tell all of them side by side.

    A value whose training diverges is a result: it is told as such, and the others go on.

    Raises:
        ViterError: whatever else ends a run; the same command goes on with it. Or, after the table, the divergence.
    """
    problems: dict[str, str] = {}
    diverged: ViterError | None = None
    console = Console()
    told = f"all start from the init checkpoint of {sweep.init.name}" if sweep.init else "each from its own start"
    console.tell(f"{sweep.name}: {len(sweep.values)} values, {told}")
    for number, config in enumerate(sweep.runs, start=0 if sweep.init else 1):
        head = f"{number} of {len(sweep.values)}: {config.name}" if number else f"init: {config.name}"
        if is_finished(config):
            console.tell(f"{head} is finished already")
            continue
        console.tell(head)
        try:
            train_run.complete(config)
        except ViterError as error:
            if exit_code(error) != EXIT_CODES["DivergedError"]:
                raise
            diverged, problems[config.name] = error, " ".join(str(error).split())
    found = results.gathered(sweep, problems)
    path = results.write(sweep.values[0].config.store.uri, found)
    console.tell(f"\n{results.table(found)}\n\n{path}")
    if diverged:
        raise diverged


def is_finished(config: RunConfig) -> bool:
    """Whether a driver trained this run to its end and measured it as it is asked to."""
    record = run_record.read(open_store(config.store.uri), config.name)
    is_measured = config.evaluation is None or measured.read(measured.home(config.store.uri, config.name)) is not None
    return record is not None and record.status == "finished" and is_measured
