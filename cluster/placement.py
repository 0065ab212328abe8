"""Where actors will run: a plan computed from the run file alone, and the waiting until the cluster has room for it.

    plan(config) ─► Plan ─► str(plan)  (--dry-run)
                     └────► check(plan, nodes) ─► wait_for(plan)

The plan imports neither Ray nor torch. Learner ranks are placed by Ray Train, rollout workers by a placement group with one
bundle each, verifiers by Ray's SPREAD.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.config import RunConfig
from envs.base import ViterError

EXPLAIN_EVERY_S = 15.0
GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2}
OPTIMIZER_BYTES = 12  # per parameter: float32 master copy and AdamW's two moments

Resources = dict[str, float]


class CapacityError(ViterError):
    """The cluster has no room for the run, or will never have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Actors of one kind."""

    kind: str  # "learner", "rollout" or "verifier"
    count: int
    bundle: Resources  # of each actor; an actor lies on one node
    strategy: str
    memory_bytes: int | None = None  # estimate for each actor, on its device; None where the model's size is not known
    memory_of: str = ""  # what the estimate counts

    def total(self, resource: str) -> float:
        return self.count * self.bundle.get(resource, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run reserves."""

    groups: tuple[Group, ...]
    wait_s: float
    autoscales: bool
    parameters: int | None = None
    broadcasts_weights: bool = False

    @property
    def cpus(self) -> float:
        return self.total("CPU")

    @property
    def gpus(self) -> float:
        return self.total("GPU")

    def total(self, resource: str) -> float:
        return sum(group.total(resource) for group in self.groups)

    def group(self, kind: str) -> Group:
        return next(group for group in self.groups if group.kind == kind)

    def __str__(self) -> str:
        """A table for people."""
        lines = [f"{'actor':<10}{'count':>6}{'CPU each':>10}{'GPU each':>10}  {'strategy':<15}memory each"]
        for group in self.groups:
            memory = "unknown" if group.memory_bytes is None else f"{group.memory_bytes / GIB:.2f} GiB"
            lines.append(
                f"{group.kind:<10}{group.count:>6}{group.bundle.get('CPU', 0):>10g}{group.bundle.get('GPU', 0):>10g}"
                f"  {group.strategy:<15}{memory}{f' ({group.memory_of})' if group.memory_of else ''}"
            )
        size = "" if self.parameters is None else f"; the model has {self.parameters:,} parameters"
        way = "; new weights are broadcast to engines" if self.broadcasts_weights else ""
        return "\n".join([*lines, f"in all {self.cpus:g} CPU and {self.gpus:g} GPU{size}{way}"])


def plan(config: RunConfig, *, parameters: int | None = None) -> Plan:
    """What `config` reserves. All stages use the same learners; rollout workers and verifiers are there for PPO.

    Args:
        parameters: of the model, for the memory estimates; None counts them where `model.source` is a directory.
    """
    parameters = parameters if parameters is not None else count_parameters(Path(config.model.source))
    groups = [_learners(config, parameters)]
    if config.ppo is not None:
        groups += [_rollouts(config, parameters), _verifiers(config)]
    placement = config.placement
    return Plan(
        groups=tuple(groups),
        wait_s=placement.wait_s,
        autoscales=placement.autoscales,
        parameters=parameters,
        broadcasts_weights=config.ppo is not None and config.broadcasts_weights,
    )


def _learners(config: RunConfig, parameters: int | None) -> Group:
    learner, placement = config.learner, config.placement
    memory = None
    if parameters is not None:
        ranks, stage = learner.workers, learner.zero_stage
        weights = parameters * BYTES[config.model.dtype] / (ranks if stage >= 3 else 1)
        gradients = parameters * BYTES[config.model.dtype] / (ranks if stage >= 2 else 1)
        optimizer = 0 if learner.offload_optimizer else parameters * OPTIMIZER_BYTES / (ranks if stage >= 1 else 1)
        memory = round(weights + gradients + optimizer)
    return Group(
        kind="learner",
        count=learner.workers,
        bundle=_bundle(placement.learner_cpus, placement.learner_gpus),
        strategy=placement.learner_strategy,
        memory_bytes=memory,
        memory_of=f"weights, gradients, AdamW at ZeRO {learner.zero_stage}; activations come on top",
    )


def _rollouts(config: RunConfig, parameters: int | None) -> Group:
    rollout, placement = config.rollout, config.placement
    engine, memory = rollout.engine, None
    if parameters is not None:
        memory = round(parameters * BYTES[engine.dtype] / engine.tensor_parallel)
    on_cpu = placement.rollout_gpus == 0
    if memory is not None and on_cpu:
        memory += round(engine.kv_cache_gib * GIB)
    return Group(
        kind="rollout",
        count=rollout.workers,
        bundle=_bundle(placement.rollout_cpus, placement.rollout_gpus),
        strategy=placement.rollout_strategy,
        memory_bytes=memory,
        memory_of="weights and key-value cache"
        if on_cpu
        else f"weights on each of its GPUs; the cache fills {engine.gpu_memory_utilization:.0%} of them",
    )


def _verifiers(config: RunConfig) -> Group:
    return Group(
        kind="verifier",
        count=config.rollout.verifiers,
        bundle=_bundle(config.placement.verifier_cpus, 0),
        strategy="SPREAD",
        memory_bytes=GIB // 8,
        memory_of="a Python process",
    )


def _bundle(cpus: float, gpus: float) -> Resources:
    return {"CPU": cpus, **({"GPU": gpus} if gpus else {})}


def count_parameters(directory: Path) -> int | None:
    """Parameters of a directory's safetensors, read off their headers; None where there are none."""
    count = 0
    for path in sorted(directory.glob("*.safetensors")) if directory.is_dir() else ():
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), 100_000_000)))
        except (OSError, ValueError):
            return None
        for name, entry in header.items():
            if name != "__metadata__":
                size = 1
                for extent in entry["shape"]:
                    size *= extent
                count += size
    return count or None


def check(plan: Plan, nodes: Sequence[Resources]) -> str:
    """Why the plan does not fit into `nodes`, each given by its resources; empty when it does.

    Actors are put, the largest first, on the node with the most left. That can miss a tight fit, so it is a reason to
    wait and never one to refuse; what `shortage` finds is certain.
    """
    return shortage(plan, nodes) or _unplaced(plan, nodes)


def shortage(plan: Plan, nodes: Sequence[Resources]) -> str:
    """What no arrangement of the actors on `nodes` can mend: sums, the largest actor of a kind, strict strategies."""
    for resource in ("GPU", "CPU"):
        needed, there = plan.total(resource), sum(node.get(resource, 0) for node in nodes)
        if needed > there + 1e-6:
            return f"the run needs {needed:g} {resource}, the cluster has {there:g}"
    for group in plan.groups:
        for resource, amount in group.bundle.items():
            largest = max((node.get(resource, 0) for node in nodes), default=0)
            if amount > largest:
                return f"a {group.kind} actor needs {amount:g} {resource} on one node, the largest node has {largest:g}"
        if group.strategy == "STRICT_SPREAD" and group.count > len(nodes):
            return f"{group.count} {group.kind} actors need a node each (STRICT_SPREAD), the cluster has {len(nodes)}"
        if group.strategy == "STRICT_PACK":
            for resource in group.bundle:
                largest = max((node.get(resource, 0) for node in nodes), default=0)
                if group.total(resource) > largest + 1e-6:
                    return (
                        f"{group.count} {group.kind} actors need {group.total(resource):g} {resource} on one node "
                        f"(STRICT_PACK), the largest has {largest:g}"
                    )
    return ""


def _unplaced(plan: Plan, nodes: Sequence[Resources]) -> str:
    left = [dict(node) for node in nodes]
    bundles = [(group.kind, group.bundle) for group in plan.groups for _ in range(group.count)]
    for kind, bundle in sorted(bundles, key=lambda item: (-item[1].get("GPU", 0), -item[1]["CPU"])):
        room = [node for node in left if all(node.get(name, 0) >= amount - 1e-6 for name, amount in bundle.items())]
        if not room:
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
            return f"no node has {wanted} left for a {kind} actor beside the others"
        node = max(room, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)))
        for name, amount in bundle.items():
            node[name] -= amount
    return ""


def demand(plan: Plan) -> list[Resources]:
    """What an autoscaler is asked for: the actors' bundles, and a group that must share a node as one of them."""
    bundles: list[Resources] = []
    for group in plan.groups:
        if group.strategy == "STRICT_PACK":
            bundles.append({resource: group.total(resource) for resource in group.bundle})
        else:
            bundles += [dict(group.bundle) for _ in range(group.count)]
    return bundles


def wait_for(
    plan: Plan,
    tell: Callable[[str], None],
    *,
    read: Callable[[], tuple[list[Resources], list[Resources]]] | None = None,
    ask: Callable[[list[Resources]], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return once the cluster has room; every 15 s `tell` hears what it is waiting for.

    A cluster that adds nodes on demand is asked for them: it sees only what actors wait for, and none is there yet.

    Args:
        read: what each node has in all and what is free of it; None asks Ray.
        ask: takes the bundles that the cluster shall have room for, none of them to take that back; None asks Ray.
    Raises:
        CapacityError: after `placement.wait_s`, or at once where the cluster can never have room and adds no nodes.
    """
    read, ask = read or _ray_nodes, ask or _ask_autoscaler
    if not check(plan, read()[1]):
        return None
    if not plan.autoscales:
        return _wait(plan, tell, read, sleep, clock)
    ask(demand(plan))
    try:
        _wait(plan, tell, read, sleep, clock)
    finally:
        ask([])  # from here on the actors keep the nodes; without them, they may go


def _wait(
    plan: Plan,
    tell: Callable[[str], None],
    read: Callable[[], tuple[list[Resources], list[Resources]]],
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    until = clock() + plan.wait_s
    told = -EXPLAIN_EVERY_S
    while True:
        nodes, free = read()
        if not (lack := check(plan, free)):
            return
        never = shortage(plan, nodes)
        if never and not plan.autoscales:
            raise CapacityError(
                f"placement: {never}, and it adds no nodes by itself; ask for less in rollout.*, learner.workers or "
                "placement.*, or set placement.autoscales=true where it does"
            )
        left = until - clock()
        if left <= 0:
            raise CapacityError(
                f"placement: {lack}, and placement.wait_s={plan.wait_s:g} is over; free some, or wait longer"
            )
        if clock() - told >= EXPLAIN_EVERY_S:
            told = clock()
            which = lack if never else lack.replace("the cluster has", "free are").replace("node has", "free node has")
            tell(f"{which}; waiting, {left:.0f} s left")
        sleep(min(1.0, max(0.0, left)))


def _ray_nodes() -> tuple[list[Resources], list[Resources]]:
    import ray
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [node["Resources"] for node in nodes], [dict(free.get(node["NodeID"], {})) for node in nodes]


def _ask_autoscaler(bundles: list[Resources]) -> None:
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles)
