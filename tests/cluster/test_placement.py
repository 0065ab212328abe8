import struct

import pytest

from cluster.config import RunConfig
from cluster.placement import CapacityError, check, count_parameters, demand, plan, wait_for
from envs.base import ConfigError, validated

MILLION = 1_000_000


def run_config(**sections) -> RunConfig:
    return validated(RunConfig, {"name": "a-run", "ppo": {}, **sections}, source="test")


def gpus(**placement) -> RunConfig:
    return run_config(
        learner={"workers": 4, "zero_stage": 3},
        rollout={"workers": 2, "verifiers": 3, "engine": {"tensor_parallel": 2}},
        placement={"learner_gpus": 1, "rollout_gpus": 2, **placement},
    )


def node(cpus: float, gpus: float = 0) -> dict[str, float]:
    return {"CPU": cpus, **({"GPU": gpus} if gpus else {})}


def test_a_plan_counts_what_every_actor_reserves():
    planned = plan(gpus())
    assert {group.kind: group.count for group in planned.groups} == {"learner": 4, "rollout": 2, "verifier": 3}
    assert planned.gpus == 4 * 1 + 2 * 2
    assert planned.cpus == pytest.approx(4 + 2 + 0.3)
    assert planned.group("rollout").bundle == {"CPU": 1, "GPU": 2}


@pytest.mark.parametrize(
    ("weights", "learner", "rollout", "is_broadcast"),
    [
        ("auto", 0, 0, False), ("auto", 1, 2, True), ("auto", 0.5, 0.5, False), ("auto", 1, 0, False),
        ("store", 1, 2, False), ("broadcast", 0, 0, True),
    ],
)  # fmt: skip
def test_weights_are_broadcast_between_gpus_and_where_it_is_asked_for(weights, learner, rollout, is_broadcast: bool):
    placement = {"learner_gpus": learner, "rollout_gpus": rollout}
    planned = plan(run_config(rollout={"weights": weights}, placement=placement))
    assert planned.broadcasts_weights == is_broadcast
    assert ("broadcast to engines" in str(planned)) == is_broadcast


@pytest.mark.parametrize(("learner", "rollout"), [(1, 0), (0, 1), (0.5, 0.5)])
def test_a_broadcast_between_unlike_devices_or_on_one_gpu_is_refused(learner: float, rollout: float):
    with pytest.raises(ConfigError, match=r"rollout.weights=broadcast needs .* use store"):
        run_config(
            rollout={"weights": "broadcast"}, placement={"learner_gpus": learner, "rollout_gpus": rollout}
        )  # fmt: skip


def test_a_run_without_ppo_needs_only_learners():
    planned = plan(validated(RunConfig, {"name": "a-run", "sft": {}}, source="test"))
    assert [group.kind for group in planned.groups] == ["learner"]


@pytest.mark.parametrize(
    ("stage", "bytes_per_parameter"),
    [(0, 2 + 2 + 12), (1, 2 + 2 + 12 / 4), (2, 2 + 2 / 4 + 12 / 4), (3, (2 + 2 + 12) / 4)],
)
def test_memory_of_a_learner_follows_its_zero_stage(stage: int, bytes_per_parameter: float):
    config = run_config(learner={"workers": 4, "zero_stage": stage})
    assert plan(config, parameters=MILLION).group("learner").memory_bytes == pytest.approx(
        MILLION * bytes_per_parameter
    )


def test_memory_of_an_engine_is_its_weights_and_on_cpu_its_cache():
    config = run_config(rollout={"engine": {"kv_cache_gib": 2, "dtype": "float32"}})
    assert plan(config, parameters=MILLION).group("rollout").memory_bytes == 4 * MILLION + 2 * 2**30
    assert plan(gpus(), parameters=MILLION).group("rollout").memory_bytes == 2 * MILLION / 2


def test_parameters_are_read_off_the_headers_of_safetensors(tmp_path):
    header = (
        b'{"a":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]},"__metadata__":{"format":"pt"},'
        b'"b":{"dtype":"F32","shape":[],"data_offsets":[48,52]}}'
    )
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(52))
    assert count_parameters(tmp_path) == 13
    (tmp_path / "more.safetensors").write_bytes(b"\xff" * 20)
    assert count_parameters(tmp_path) is None
    assert count_parameters(tmp_path / "absent") is None


def test_the_table_is_for_people():
    text = str(plan(gpus(), parameters=8 * MILLION))
    assert "learner        4         1         1  PACK" in text
    assert "rollout        2         1         2  SPREAD" in text
    assert "in all 6.3 CPU and 8 GPU; the model has 8,000,000 parameters" in text
    assert "unknown" in str(plan(run_config(model={"source": "org/name"})))


@pytest.mark.parametrize(
    ("nodes", "lack"),
    [
        ([node(16, 8)], ""),
        ([node(16, 4), node(16, 4)], ""),
        ([node(16)], "the run needs 8 GPU, the cluster has 0"),
        ([node(3, 8)], "the run needs 6.3 CPU, the cluster has 3"),
        ([node(4, 1)] * 8, "a rollout actor needs 2 GPU on one node, the largest node has 1"),
        ([node(4, 3)] * 2 + [node(4, 1)] * 2, ""),
        ([node(1, 4), node(64, 4)], "no node has 1 CPU and 1 GPU left for a learner actor beside the others"),
    ],
)
def test_a_plan_is_checked_against_the_nodes(nodes, lack: str):
    assert check(plan(gpus()), nodes) == lack


def test_strict_strategies_are_part_of_the_check():
    assert "need a node each" in check(plan(gpus(rollout_strategy="STRICT_SPREAD")), [node(16, 8)])
    packed = check(plan(gpus(learner_strategy="STRICT_PACK")), [node(16, 3)] * 3)
    assert packed == "4 learner actors need 4 GPU on one node (STRICT_PACK), the largest has 3"


class Clock:
    def __init__(self):
        self.now = 0.0

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.1)


def wait(config: RunConfig, nodes, free=None, *, until_s: float = 1e9):
    """What was told, and when the wait ended; `free` holds until `until_s`, then everything is free."""
    clock, told = Clock(), []

    def read():
        return nodes, (free if free is not None and clock.now < until_s else nodes)

    wait_for(
        plan(config), lambda text: told.append((clock.now, text)), read=read, ask=lambda bundles: None,
        sleep=clock.sleep, clock=clock.read,
    )  # fmt: skip
    return told, clock.now


def test_a_cluster_with_room_is_not_waited_for():
    assert wait(gpus(), [node(16, 8)]) == ([], 0.0)


def test_what_can_never_fit_is_refused_at_once_in_one_sentence():
    config = run_config(placement={"rollout_gpus": 64})
    with pytest.raises(CapacityError, match=r"the run needs 64 GPU, the cluster has 0, and it adds no nodes") as caught:
        wait(config, [node(8)])
    assert "\n" not in str(caught.value)


def test_a_fit_that_is_merely_hard_to_find_is_waited_for():
    told, _ = wait(gpus(), [node(16, 8)], [node(1, 4), node(64, 4)], until_s=3)
    assert len(told) == 1
    with pytest.raises(CapacityError, match="is over"):
        wait(gpus(), [node(1, 4), node(64, 4)])


def test_a_full_cluster_is_waited_for_with_an_explanation_every_15_s():
    told, ended = wait(gpus(), [node(16, 8)], [node(16, 2)], until_s=40)
    assert 40 <= ended < 42
    assert [round(at) for at, _ in told] == [0, 15, 30]
    assert told[0][1] == "the run needs 8 GPU, free are 2; waiting, 600 s left"
    assert told[1][1].endswith("585 s left")


def test_a_cluster_that_grows_is_waited_for():
    with pytest.raises(CapacityError, match=r"placement\.wait_s=30 is over"):
        wait(gpus(autoscales=True, wait_s=30), [node(16)])


def test_the_wait_ends_at_its_limit():
    with pytest.raises(CapacityError, match=r"the run needs 8 GPU.*placement\.wait_s=600 is over"):
        wait(gpus(), [node(16, 8)], [node(16, 2)])


def test_a_cluster_that_adds_nodes_on_demand_is_asked_for_them_and_the_asking_is_taken_back():
    planned, events = plan(gpus(autoscales=True, learner_strategy="STRICT_PACK")), []

    def read():
        nodes = [node(16, 8)] * events.count("asked")
        return nodes, nodes

    def ask(bundles):
        events.append("asked" if bundles else "taken back")
        assert not bundles or bundles == demand(planned)

    wait_for(planned, lambda text: events.append("told"), read=read, ask=ask, sleep=lambda s: None)
    assert events == ["asked", "taken back"]


def test_learners_that_must_share_a_node_are_asked_for_in_one_piece():
    asked = demand(plan(gpus(learner_strategy="STRICT_PACK")))
    assert asked == [{"CPU": 4, "GPU": 4}, *[{"CPU": 1, "GPU": 2}] * 2, *[{"CPU": 0.1}] * 3]


def test_a_cluster_of_fixed_size_is_never_asked_nor_one_with_room():
    def ask(bundles):
        raise AssertionError(bundles)

    free = [node(16, 8)]
    for config in (gpus(autoscales=True), gpus()):
        wait_for(plan(config), lambda text: None, read=lambda: (free, free), ask=ask)
    with pytest.raises(CapacityError):
        wait_for(plan(gpus()), lambda text: None, read=lambda: ([node(1)], [node(1)]), ask=ask)


def test_what_was_asked_for_is_taken_back_when_the_wait_is_over_in_vain():
    clock, asked = Clock(), []
    with pytest.raises(CapacityError, match="is over"):
        wait_for(
            plan(gpus(autoscales=True)), lambda text: None, read=lambda: ([], []), ask=asked.append, sleep=clock.sleep,
            clock=clock.read,
        )  # fmt: skip
    assert asked[-1] == []
    assert len(asked) == 2
