"""`viter submit`, `stop` and `runs`: runs elsewhere, as Ray jobs or through a service, and what became of them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from envs.base import ConfigError
from services.exits import exit_code, plain_errors

if TYPE_CHECKING:
    from cluster.config import RunConfig
    from services.client import Client

RunFile = Annotated[Path, typer.Argument(help="A run file, e.g. deploy/runs/nano-gp-l.yaml", metavar="RUN.yaml")]
Overrides = Annotated[
    list[str], typer.Option("--set", help="Override one key: --set ppo.viter=10", metavar="KEY=VALUE")
]
Dashboard = Annotated[
    str | None, typer.Option(help="The Ray dashboard, e.g. http://head:8265", envvar="RAY_API_SERVER_ADDRESS")
]
Url = Annotated[str | None, typer.Option(help="A service that trains, instead of a dashboard.", envvar="VITER_URL")]
Store = Annotated[str, typer.Option(help="Where runs live: a directory or any pyarrow.fs URI.")]
TokenStore = Annotated[str, typer.Option(help="Where the service keeps its token; or set VITER_TOKEN.")]
POLL_S = 2.0


def submit(
    run_file: RunFile,
    address: Dashboard = None,
    overrides: Overrides = [],  # noqa: B006
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once it is submitted.")] = False,
    url: Url = None,
    store: TokenStore = "runs",
) -> None:
    """Run RUN.yaml as a Ray job, follow its log, and exit with its own exit code. Submitted again, it resumes."""
    with plain_errors():
        from cluster import jobs
        from cluster.config import RunConfig

        config = RunConfig.load(run_file, tuple(overrides))
        if _by_service(address, url):
            with _client(url or "", store) as client:
                client.submit_run(_told(config))
                typer.echo(f"submitted {config.name}; stop it with: viter stop {config.name} --url {url}", err=True)
                if not no_wait:
                    raise typer.Exit(_follow(client, config.name, lambda text: typer.echo(text, nl=False)))
            return
        job = jobs.submit(config, address=address or "")
        typer.echo(f"submitted {config.name}; stop it with: viter stop {config.name} --address {address}", err=True)
        if not no_wait:
            raise typer.Exit(jobs.follow(job, typer.echo))


def stop(
    job: Annotated[str, typer.Argument(help="The job's id: the run's name.")],
    address: Dashboard = None,
    url: Url = None,
    store: TokenStore = "runs",
) -> None:
    """Stop a submitted run, giving it time to end in order. Submitting it again resumes it."""
    with plain_errors():
        from cluster import jobs

        if _by_service(address, url):
            with _client(url or "", store) as client:
                status = client.stop_run(job).status
            typer.echo(f"{job}: {'asked to stop; it ends after its step' if status == 'running' else status}")
        else:
            typer.echo(jobs.stop(jobs.find(job, address=address or "")))


def runs(store: Store = "runs") -> None:
    """List the runs of a store: their newest checkpoints, how they are and how far."""
    with plain_errors():
        from services import naming

        for line in naming.lines(store):
            typer.echo(line)


def _by_service(address: str | None, url: str | None) -> bool:
    if (address is None) == (url is None):
        raise ConfigError("name where to: either --address, a Ray dashboard, or --url, a service that trains")
    return url is not None


def _client(url: str, store: str) -> "Client":
    from services import evaluate_run
    from services.client import Client

    return Client(url, evaluate_run.token(store))


def _told(config: "RunConfig") -> dict[str, Any]:
    """A run as the service takes it: its store is the service's own."""
    return config.model_dump(mode="json", exclude={"store": {"uri"}})


def _follow(client: "Client", name: str, echo: Callable[[str], None]) -> int:
    """Print the log of a run until it has ended, and return its exit code. An interrupt leaves the run going."""
    from cluster.job_outcome import RETRY_EXIT, last_word
    from services.client import ServiceError

    offset, text = 0, ""
    try:
        while True:
            has_ended = client.run(name).status != "running"  # asked first: what it printed last is read after
            try:
                more, offset = client.run_log(name, offset)
            except ServiceError:  # a job that is being prepared has no log yet
                more = ""
            echo(more)
            text = (text + more)[-10_000:]
            if has_ended and not more:
                break
            time.sleep(0 if more else POLL_S)
    except KeyboardInterrupt as interrupt:
        echo(f"the run goes on; stop it with: viter stop {name} --url {client.url}\n")
        return exit_code(interrupt)
    said = last_word(text)
    if said is not None:
        return said
    return {"finished": 0, "failed": 1}.get(client.run(name).status, RETRY_EXIT)
