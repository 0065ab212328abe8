"""`viter eval` and `viter compare`: a checkpoint measured through a running service, and two of them task by task."""

from typing import Annotated

import typer

from services.exits import plain_errors

DEFAULT_URL = "http://127.0.0.1:8000"
Url = Annotated[str, typer.Option(help="The service.", envvar="VITER_URL")]
TokenStore = Annotated[str, typer.Option(help="Where the service keeps its token; or set VITER_TOKEN.")]


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="RUN@step-000040, RUN@latest or RUN@ALIAS")],
    suite: Annotated[list[str], typer.Option(help="A suite, again for more; ID and OOD if left out.")] = [],  # noqa: B006
    n: Annotated[int, typer.Option("--n", min=1, help="Tasks of each suite.")] = 512,
    viter: Annotated[int, typer.Option(min=1, help="Judged attempts per task.")] = 5,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature; 0 is greedy.")] = 1.0,
    option: Annotated[
        list[str],
        typer.Option(
            help="How tasks are shown, again for more: --option resolution=128; as it trained if left out.",
            metavar="KEY=VALUE",
        ),
    ] = [],  # noqa: B006
    against: Annotated[
        str | None, typer.Option(help="Another checkpoint, measured alike and compared task by task.")
    ] = None,
    url: Url = DEFAULT_URL,
    store: TokenStore = "runs",
) -> None:
    """Measure a checkpoint on ID and OOD suites through a running service."""
    with plain_errors():
        from cluster.config import assigned
        from services import compare_run
        from services import evaluate_run as evaluations
        from services.client import Client
        from services.console import Console

        shown = assigned(option, flag="--option")
        order = {"suites": suite, "n": n, "viter": viter, "decoding": {"temperature": temperature}, "options": shown}
        with Client(url, evaluations.token(store)) as client, Console() as console:
            if against:
                told = compare_run.table(compare_run.against(client, checkpoint, against, console.show, **order))
            else:
                done = evaluations.one(client, checkpoint, console.show, **order)
                told = evaluations.table([(done.model, result) for result in done.results or ()])
        typer.echo(told)


def compare(
    first: Annotated[str, typer.Argument(help="An evaluation, e.g. eval-0123456789abcdef", metavar="EVAL")],
    second: Annotated[str, typer.Argument(help="Another, which is compared with the first", metavar="EVAL")],
    url: Url = DEFAULT_URL,
    store: TokenStore = "runs",
) -> None:
    """Compare two evaluations task by task: the difference, its interval, and whether it is beyond chance."""
    with plain_errors():
        from services import compare_run
        from services import evaluate_run as evaluations
        from services.client import Client

        with Client(url, evaluations.token(store)) as client:
            typer.echo(compare_run.table(client.compare(first, second)))
