"""`viter chaos`: break things on purpose and count what it cost."""

from pathlib import Path
from typing import Annotated

import typer

from services.exits import plain_errors


def chaos(
    drill: Annotated[
        list[str], typer.Argument(help="Drills, each as NAME or NAME=TIMES; all if left out.", metavar="[DRILL]...")
    ] = [],  # noqa: B006 - typer reads it and never changes it
    long: Annotated[bool, typer.Option("--long", help="As often as the table in FAULTS.md.")] = False,
    seed: Annotated[int, typer.Option(help="Of the times and the victims.")] = 1,
    out: Annotated[Path, typer.Option(help="Where the results go, as JSON.")] = Path("runs/chaos.json"),
    names: Annotated[bool, typer.Option("--list", help="Say what drills there are.")] = False,
) -> None:
    """Break runs on this machine on purpose and see whether they hold. Exits with 1 where one does not."""
    with plain_errors():
        from cluster import interrupts
        from services.chaos import drills, outcome

        interrupts.listen()  # ended in order, a drill takes down what it started
        if names:
            for name, known in drills.DRILLS.items():
                typer.echo(f"{name:<16}{known.about} (×{known.short}, --long ×{known.long})")
            return
        asked = drills.chosen(drill, long=long)
        found = []
        for done in drills.run_all(asked, seed=seed, tell=lambda words: typer.echo(words, err=True)):
            found.append(done)
            outcome.save(found, out)
        typer.echo(outcome.table(found))
        if not all(done.held for done in found):
            raise typer.Exit(1)
