"""`viter`: every command parses, calls one thing and answers. Starting it loads neither torch nor Ray nor vLLM.

Exit codes stand in `exits`. A user's mistake is one sentence on standard error, never a traceback.
"""

import json
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from envs.base import ConfigError
from services import chaos_cli, evaluate_cli, runs_cli, sweep_cli, token_cli
from services.exits import plain_errors

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
"""Post-train language models against a verifier, serve them, and measure them on rules they never trained on."""

app.add_typer(token_cli.app, name="token")
app.command("eval")(evaluate_cli.evaluate)
app.command()(evaluate_cli.compare)
app.command()(chaos_cli.chaos)
app.command()(sweep_cli.sweep)
app.command()(runs_cli.submit)
app.command()(runs_cli.stop)
app.command()(runs_cli.runs)

RunFile = Annotated[Path, typer.Argument(help="A run file, e.g. deploy/runs/nano-gp-l.yaml", metavar="RUN.yaml")]
Overrides = Annotated[
    list[str], typer.Option("--set", help="Override one key: --set ppo.viter=10", metavar="KEY=VALUE")
]
Store = Annotated[str, typer.Option(help="Where runs live: a directory or any pyarrow.fs URI.")]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster; left out, this machine alone is used.")]


@app.command()
def train(
    run_file: RunFile,
    overrides: Overrides = [],  # noqa: B006 - typer reads it and never changes it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved run and its placement.")] = False,
    address: Address = None,
) -> None:
    """Train as RUN.yaml says, then evaluate and report. The same command resumes a run that was cut off."""
    with plain_errors():
        from cluster import interrupts, placement
        from cluster.config import RunConfig
        from services import plan as plans

        config = RunConfig.load(run_file, tuple(overrides))
        plan = placement.plan(config)
        if dry_run:
            typer.echo(plans.told(config, plan))
        if address:
            os.environ["RAY_ADDRESS"] = address  # what ray.init reads
        if not os.environ.get("RAY_ADDRESS"):
            plans.check_this_machine(plan)
        if dry_run:
            raise typer.Exit(0)
        plans.check_source(config)
        interrupts.listen()
        from services import train_run

        train_run.run(config)
        if os.environ.get("VITER_JOB"):
            typer.echo(json.dumps({"viter_exit": 0}))


@app.command()
def plan(
    run_file: RunFile,
    overrides: Overrides = [],  # noqa: B006
    like: Annotated[
        str | None, typer.Option(help="Take rates from a finished PPO stage of the store.", metavar="RUN-ppo")
    ] = None,
    card: Annotated[str, typer.Option(help="Without --like: a100, h100 or h200.")] = "h100",
    success: Annotated[float, typer.Option(help="Without --like: chance of each attempt.", min=0.001, max=1)] = 0.15,
    viter: Annotated[
        list[int],
        typer.Option(
            min=1, help="Verification iterations, again for more; 1, 3, 5 and 10, or a curriculum's, if left out."
        ),
    ] = [],  # noqa: B006
    scale: Annotated[
        list[int], typer.Option(min=1, max=10_000, help="So many times the workers and episodes, again for more.")
    ] = [],  # noqa: B006
) -> None:
    """Forecast memory, step time, bubble and sync of RUN.yaml's PPO. Starts nothing."""
    with plain_errors():
        from cluster.config import RunConfig
        from services import plan as plans

        config = RunConfig.load(run_file, tuple(overrides))
        scales = scale or [1]
        typer.echo(plans.forecasts(config, run=like, card=card, success=success, viters=viter, scales=scales))


@app.command()
def serve(
    store: Store = "runs",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Take requests without a token.")] = False,
    evaluate_new: Annotated[
        int | None, typer.Option(help="Measure each new checkpoint by itself, on so many tasks of each suite.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of Prometheus metrics; a free one if left out.")
    ] = None,
) -> None:
    """Serve the checkpoints of a store over HTTP until interrupted."""
    with plain_errors():
        from envs.base import validated
        from services import serving
        from services.config import ServiceConfig

        new = {"evaluate_new": {"n": evaluate_new}} if evaluate_new is not None else {}
        home = {"state": "runs"} if "://" in store else {}  # a bucket keeps no tokens
        asked = {"store": store, "host": host, "port": port, "auth": "none" if no_auth else "token", **home, **new}
        serving.run(validated(ServiceConfig, {**asked, "metrics_port": metrics_port}, source="viter serve"))


@app.command()
def verify() -> None:
    """Judge answers: JSON lines on standard input, one verdict line each on standard output, in order."""
    with plain_errors():
        from envs.verify import LineError, verify_line

        if isinstance(sys.stdin, TextIOWrapper):  # bytes that are no UTF-8 spoil one line, not the rest
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
        bad_lines = 0
        for number, line in enumerate(sys.stdin, start=1):
            if not line.strip():
                continue
            try:
                answer = verify_line(line, number)
            except LineError as error:
                bad_lines += 1
                answer = {"error": str(error)}
            sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        if bad_lines:
            raise ConfigError(f"standard input: bad lines: {bad_lines}, told in place; the others are judged")


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A file of RUN-ppo/quarantine/", metavar="FILE.json")],
    checkpoint: Annotated[
        str | None, typer.Option(help="Play it with RUN@step-000040 or a model's directory instead.")
    ] = None,
    store: Store = "runs",
) -> None:
    """Replay a quarantined episode: judge the answer that no verifier could, or play it again. One turn a line."""
    with plain_errors():
        from services import replay as replays

        replays.run(
            file, store=store, checkpoint=checkpoint, tell=typer.echo, warn=lambda text: typer.echo(text, err=True)
        )


@app.command()
def rail(
    routes: Annotated[Path, typer.Argument(help="A route file: [[route, ...], k]", metavar="ROUTES.json")],
    route: Annotated[int, typer.Option(help="Its number in the file, from 0.")] = 0,
    actions: Annotated[str, typer.Option(help="The action space: absolute or relative.")] = "absolute",
    straight_line_length: Annotated[int, typer.Option(help="Steps along a leg.")] = 2,
    drop_rate: Annotated[float, typer.Option(help="Chance of a step to be left out, below 1.")] = 0.0,
    legacy_headings: Annotated[
        bool, typer.Option("--legacy-headings", help="Do not wrap turns at 360 degrees.")
    ] = False,
) -> None:
    """Print the oracle's way along a V-IRL route, one position a line."""
    with plain_errors():
        from envs.virl import rail_lines

        asked = {
            "actions": actions,
            "straight_line_length": straight_line_length,
            "drop_rate": drop_rate,
            "legacy_headings": legacy_headings,
        }
        for line in rail_lines.of_file(routes, route, asked):
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")


@app.command()
def routes(
    city: Annotated[str, typer.Argument(help="gridport, oldtown, ringhaven or hillcrest")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Routes.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Names the city and its routes.")] = 0,
    legs: Annotated[tuple[int, int], typer.Option(help="Fewest and most legs of a route.")] = (2, 4),
) -> None:
    """Write routes of a generated city as a V-IRL route file."""
    with plain_errors():
        from envs.virl.routes import write_routes
        from envs.virl.walks import generated

        typer.echo(write_routes(out, generated(city, seed, legs, n)))


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="A run by name, e.g. nano-gp-l")],
    store: Store = "runs",
) -> None:
    """Write the report of a run: one HTML page that needs nothing else."""
    with plain_errors():
        from services.reports import report as reports

        typer.echo(reports.write(store, run))


@app.command()
def alias(
    checkpoint: Annotated[str, typer.Argument(help="RUN@step-000040; with --delete, RUN alone is enough.")],
    name: Annotated[str, typer.Argument(help="The alias: RUN@NAME is then this checkpoint.")],
    delete: Annotated[bool, typer.Option("--delete", help="Take the alias away.")] = False,
    store: Store = "runs",
) -> None:
    """Give a checkpoint a name of your own, or take it away."""
    with plain_errors():
        from services import naming

        typer.echo((naming.take if delete else naming.give)(store, checkpoint, name))


@app.command()
def doctor(store: Store = "runs") -> None:
    """Check this machine: versions, memory, ports, models. Every failure comes with its fix."""
    with plain_errors():
        from services import doctor as checks

        raise typer.Exit(checks.run(store))


def main() -> None:
    """The `viter` console script."""
    # of each service that ends Ray would print, between our lines, that this last call to its controller was not answered
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", r"ServeController\.graceful_shutdown")
    app()


if __name__ == "__main__":
    main()
