"""`viter token`: who may talk to a service. A running one follows within a second or two."""

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from services.exits import plain_errors

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the tokens of a service.")
Store = Annotated[
    str, typer.Option(help="The store that is served, or the directory that the service names as `state`.")
]
ScopeName = Literal["read", "evaluate", "train"]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose token it is, e.g. ci")],
    scope: Annotated[
        ScopeName, typer.Option(help="read lists and samples; evaluate also evaluates; train also trains.")
    ] = "read",
    days: Annotated[float | None, typer.Option(min=0, help="Days until it expires; never, if left out.")] = None,
    store: Store = "runs",
) -> None:
    """Make a token and show it, this once: only its hash is kept."""
    with plain_errors():
        from services.http import tokens

        typer.echo(tokens.create(Path(store) / "service", name, scope, days))


@app.command("list")
def list_tokens(store: Store = "runs") -> None:
    """List names, scopes and days. The tokens themselves are nowhere."""
    with plain_errors():
        from services.http import tokens

        for record in tokens.read(Path(store) / "service" / tokens.TOKENS_FILE):
            until = "never expires" if record.expires is None else f"until {_day(record.expires)}"
            ends = f"expired {_day(record.expires)}" if record.has_expired and record.expires else until
            typer.echo(f"{record.name}\t{record.scope}\tsince {_day(record.created)}\t{ends}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="As `viter token list` shows it")],
    store: Store = "runs",
) -> None:
    """Take a token back."""
    with plain_errors():
        from services.http import tokens

        tokens.revoke(Path(store) / "service", name)
        typer.echo(f"{name} is revoked", err=True)


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(when))
