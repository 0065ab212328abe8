"""`viter runs` and `viter alias`: the names in a store, read and written without a service."""

from collections.abc import Iterator

from services.runs.groups import Groups
from trainers.aliases import aliases, own_alias, remove_alias, write_alias
from trainers.checkpoints import Checkpoints, list_runs, resolve, verify


def lines(store: str) -> Iterator[str]:
    """A line for each stage: its checkpoints, the newest, how its run is and how far, and its aliases."""
    groups = Groups(store).all({})
    state = {s.id: f"{group.status}, step {s.step} of {s.steps or '?'}" for group in groups for s in group.stages}
    for run in sorted({*list_runs(store), *state}):
        steps = Checkpoints(store, run).steps()
        newest = f"{run}@step-{steps[-1]:06d}" if steps else "no checkpoint yet"
        named = "  ".join(f"{alias}={meant.checkpoint}" for alias, meant in aliases(store, run).items())
        told = [run, f"{len(steps)} checkpoints", newest, state.get(run, ""), named]
        yield "\t".join(word for word in told if word)


def give(store: str, checkpoint: str, alias: str) -> str:
    """Let `alias` stand for a checkpoint, once its model has been verified. Returns what to say."""
    own_alias(alias)
    found, run = resolve(store, checkpoint), checkpoint.partition("@")[0]
    verify(found, learner=False)
    write_alias(found, alias, run=run)
    return f"{run}@{alias} is {found.name} now"


def take(store: str, checkpoint: str, alias: str) -> str:
    """Let `alias` stand for nothing. Returns what to say."""
    run = checkpoint.partition("@")[0]
    remove_alias(store, run, own_alias(alias))
    return f"{run}@{alias} names nothing now"
