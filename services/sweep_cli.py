"""`viter sweep`: one run file trained once for each value of a key."""

import os
from typing import Annotated

import typer

from services.exits import plain_errors
from services.runs_cli import Overrides, RunFile


def sweep(
    run_file: RunFile,
    over: Annotated[str, typer.Option(help="The key and its values: ppo.viter=1,3,5,10", metavar="KEY=VALUE,VALUE")],
    overrides: Overrides = [],  # noqa: B006
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; left out, this machine alone is used.")
    ] = None,
) -> None:
    """Train RUN.yaml once for each value of a key, and tell them side by side. Finished values are not trained again."""
    with plain_errors():
        from cluster import interrupts, placement
        from services import plan as plans
        from services.sweeps import plan

        planned = plan.planned(run_file, tuple(overrides), over)
        if address:
            os.environ["RAY_ADDRESS"] = address  # what ray.init reads
        for config in planned.runs:
            reserved = placement.plan(config)
            if not os.environ.get("RAY_ADDRESS"):
                plans.check_this_machine(reserved)
        for config in planned.runs[:1] if planned.init else planned.runs:  # the others start from what the first makes
            plans.check_source(config)
        interrupts.listen()
        from services.sweeps import run

        run.check(planned)
        run.run(planned)
