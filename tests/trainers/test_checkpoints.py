import json
import os
import pickle
import random
import shutil
import sys
from pathlib import Path

import pytest

from envs.base import ConfigError, DataError
from tests.trainers.checkpoint_files import FILES, INFO, local_store, object_store, path_of, writer
from trainers.aliases import remove_alias
from trainers.checkpoints import (
    CheckpointDamaged,
    CheckpointInfo,
    CheckpointMissing,
    Checkpoints,
    aliases,
    list_runs,
    materialise,
    model_digest,
    resolve,
    verify,
    write_alias,
)
from trainers.storage import Store, open_store


@pytest.fixture(params=[local_store, object_store])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return request.param(tmp_path)


@pytest.fixture
def three(store: Store) -> Checkpoints:
    """A run with checkpoints at steps 10, 20 and 30."""
    checkpoints = Checkpoints(store, "gp")
    for step in (10, 20, 30):
        checkpoints.commit(step, writer(step), INFO)
    return checkpoints


def test_a_commit_comes_back_with_its_files_and_info(three: Checkpoints, tmp_path: Path):
    checkpoint = resolve(three.store, "gp@step-000020")
    assert (checkpoint.name, checkpoint.step, checkpoint.run) == ("gp@step-000020", 20, "gp")
    assert checkpoint.info == INFO
    folder = materialise(checkpoint, tmp_path / "cache")
    for name in FILES:
        assert (folder / name).read_bytes().startswith(f"{name} of step 20".encode())
    assert three.steps() == [10, 20, 30]
    assert three.newest().step == 30
    assert list_runs(three.store) == ["gp"]


def test_a_checkpoint_crosses_processes(three: Checkpoints):
    there = pickle.loads(pickle.dumps(three.get(10)))  # noqa: S301
    verify(there)
    assert there.digest == three.get(10).digest


def test_equal_weights_have_equal_digests_in_any_run(three: Checkpoints, tmp_path: Path):
    def same_model_other_state(directory: Path) -> None:
        writer(20)(directory)
        (directory / "learner/rank0.pt").write_bytes(b"another optimizer")

    twin = Checkpoints(three.store, "other").commit(7, same_model_other_state, INFO)
    assert twin.digest == three.get(20).digest != three.get(30).digest
    assert model_digest(materialise(twin, tmp_path / "cache") / "model") == twin.digest


def test_a_model_alone_is_fetched_without_its_learner_state(store: Store, tmp_path: Path):
    checkpoint = Checkpoints(store, "gp").commit(1, writer(1), INFO)
    folder = materialise(checkpoint, tmp_path / "cache", learner=False)
    assert (folder / "model/config.json").exists()
    if store.directory("gp") is None:
        assert not (folder / "learner").exists()


def test_a_damaged_cache_is_fetched_again(tmp_path: Path):
    checkpoint = Checkpoints(object_store(tmp_path), "gp").commit(1, writer(1), INFO)
    folder = materialise(checkpoint, tmp_path / "cache")
    (folder / "model/config.json").write_text("changed")
    assert materialise(checkpoint, tmp_path / "cache") == folder
    assert (folder / "model/config.json").read_bytes().startswith(b"model/config.json of step 1")


def test_an_alias_names_a_checkpoint_until_it_is_moved(three: Checkpoints):
    write_alias(three.get(10), "best")
    assert resolve(three.store, "gp@best").step == 10
    write_alias(three.get(30), "best")
    assert resolve(three.store, "gp@best").step == 30
    assert resolve(three.store, "gp@latest").step == 30
    assert {name: alias.step for name, alias in aliases(three.store, "gp").items()} == {"best": 30}


def test_an_alias_is_refused_once_its_step_holds_other_weights(three: Checkpoints):
    write_alias(three.get(30), "best")
    three.commit(30, writer(31), INFO)
    with pytest.raises(CheckpointDamaged, match="set the alias again"):
        resolve(three.store, "gp@best")


@pytest.mark.parametrize("alias", ["latest", "step-000010", "Best", "../best", "", "a/b"])
def test_a_bad_alias_is_refused(three: Checkpoints, alias: str):
    with pytest.raises(DataError):
        write_alias(three.get(10), alias)


def test_a_step_written_twice_holds_the_second(three: Checkpoints):
    replaced = three.get(20).digest
    three.commit(20, writer(21), INFO)
    assert three.get(20).digest != replaced
    verify(three.get(20))
    assert three.steps() == [10, 20, 30]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gp@step-000011", "of gp it holds 10, 20, 30"),
        ("gp@best", "it knows latest and step-NNNNNN"),
        ("gpo@latest", "did you mean 'gp'"),
        ("nothing@latest", "its runs are gp"),
    ],
)
def test_what_is_missing_is_told_with_what_there_is(three: Checkpoints, name: str, words: str):
    with pytest.raises(CheckpointMissing, match=words):
        resolve(three.store, name)


HOSTILE = [
    "../gp",
    "..",
    ".",
    "",
    "/etc",
    "gp/../gp",
    "%2e%2e%2f",
    "gp\0",
    "gp\\..",
    "a" * 300,
    "gp\n",
    "ｇｐ",
    "~",
    "gp/x",
    "C:",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_out_of_the_store(three: Checkpoints, name: str, opened_files: list[str], tmp_path: Path):
    opened_files.clear()
    for reference in (f"{name}@latest", f"{name}@step-000010", f"gp@{name}", f"gp@step-{name}", name):
        with pytest.raises(DataError):
            resolve(three.store, reference)
    assert [path for path in opened_files if not path.startswith(str(tmp_path)) and "/site-packages/" not in path] == []


@pytest.fixture
def opened_files() -> list[str]:
    """Paths that Python opens from here on. An audit hook cannot be removed, so it is told when to stop."""
    paths: list[str] = []
    is_watching = [True]

    def watch(event: str, arguments: tuple) -> None:
        if is_watching[0] and event == "open" and isinstance(arguments[0], str):
            paths.append(arguments[0])

    sys.addaudithook(watch)
    yield paths
    is_watching[0] = False


def test_a_link_out_of_the_store_is_not_followed(tmp_path: Path):
    outside = tmp_path / "outside"
    Checkpoints(outside, "gp").commit(1, writer(1), INFO)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/gp").symlink_to(outside / "gp")
    with pytest.raises(DataError, match="leads out of the store"):
        resolve(tmp_path / "runs", "gp@latest")


def test_links_are_not_committed(tmp_path: Path):
    def write(directory: Path) -> None:
        writer(1)(directory)
        (directory / "model/link.safetensors").symlink_to("/etc/hostname")

    with pytest.raises(DataError, match="never links"):
        Checkpoints(tmp_path, "gp").commit(1, write, INFO)
    assert Checkpoints(tmp_path, "gp").steps() == []


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(path: Path) -> None:
    """With the same file of an earlier step: valid bytes, right size, wrong checkpoint."""
    shutil.copy(str(path).replace("step-000030", "step-000020"), path)


@pytest.mark.parametrize("harm", [truncate, flip, swap, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_damage_is_told_with_the_file_and_the_way_out(three: Checkpoints, tmp_path: Path, name: str, harm):
    harm(path_of(three.store, tmp_path, f"gp/checkpoints/step-000030/{name}"))
    flip(path_of(three.store, tmp_path, "gp/checkpoints/step-000020/model/model.safetensors"))
    with pytest.raises(CheckpointDamaged, match=f"gp@step-000030: {name}.*newest intact earlier one is gp@step-000010"):
        verify(three.get(30))
    with pytest.raises(CheckpointDamaged, match=name):
        materialise(three.get(30), tmp_path / "cache")


def test_the_newest_intact_checkpoint_is_found_and_each_damage_is_told(three: Checkpoints, tmp_path: Path):
    told: list[str] = []
    flip(path_of(three.store, tmp_path, "gp/checkpoints/step-000030/learner/rank0.pt"))
    path_of(three.store, tmp_path, "gp/checkpoints/step-000020/manifest.json").unlink()
    assert Checkpoints(three.store, "gp", on_damage=told.append).newest().step == 10
    assert ["rank0.pt" in told[0], "manifest.json" in told[1], len(told)] == [True, True, 2]


@pytest.mark.parametrize("harm", [truncate, flip, swap, Path.unlink])
def test_nothing_without_a_valid_manifest_is_listed(three: Checkpoints, tmp_path: Path, harm):
    harm(path_of(three.store, tmp_path, "gp/checkpoints/step-000030/manifest.json"))
    assert three.steps() == [10, 20]
    assert resolve(three.store, "gp@latest").step == 20
    with pytest.raises(CheckpointDamaged, match="gp@step-000020"):
        resolve(three.store, "gp@step-000030")


def test_a_file_added_to_the_model_is_damage(three: Checkpoints, tmp_path: Path):
    path_of(three.store, tmp_path, "gp/checkpoints/step-000030/model/modeling_evil.py").write_text("boom")
    with pytest.raises(CheckpointDamaged, match="added after the commit"):
        verify(three.get(30))


@pytest.mark.parametrize("seed", range(40))
def test_any_flipped_bit_is_found(tmp_path: Path, seed: int):
    """Also in the manifest: flipped, it cannot say what it said before and still match its own sha256."""
    draw = random.Random(seed)
    checkpoint = Checkpoints(tmp_path, "gp").commit(1, writer(1, size_bytes=50), INFO)
    path = draw.choice(sorted(p for p in Path(checkpoint.uri).rglob("*") if p.is_file()))
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    try:
        found = Checkpoints(tmp_path, "gp").get(1)
        verify(found)
    except CheckpointDamaged:
        return
    assert path.name == "manifest.json"
    assert found.manifest == checkpoint.manifest  # the bit was in white space


def test_a_folder_without_its_commit_object_does_not_exist(tmp_path: Path):
    store = object_store(tmp_path)
    checkpoints = Checkpoints(store, "gp")
    checkpoints.commit(10, writer(10), INFO)
    checkpoints.commit(20, writer(20), INFO)
    (tmp_path / "bucket/gp/checkpoints/step-000020/COMMIT").unlink()
    assert checkpoints.steps() == [10]
    with pytest.raises(CheckpointMissing):
        checkpoints.get(20)


def test_the_commit_object_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store, order = object_store(tmp_path), []
    create = store._create
    monkeypatch.setattr(store, "_create", lambda path: order.append(path) or create(path))
    Checkpoints(store, "gp").commit(1, writer(1), INFO)
    folder = "gp/checkpoints/step-000001"
    assert order[-2:] == [f"{folder}/manifest.json", f"{folder}/COMMIT"]
    assert sorted(order[:-2]) == sorted(f"{folder}/{name}" for name in FILES)


def test_files_and_folders_are_synced_before_the_checkpoint_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        events.append("sync " + "/".join(path.split("/")[len(tmp_path.parts) + 2 :]))
        fsync(handle)

    def watched_rename(source: Path, target: Path) -> None:
        events.append("rename")
        rename(source, target)

    Checkpoints(tmp_path, "gp").commit(1, writer(1), INFO)  # makes the run's folders
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    Checkpoints(tmp_path, "gp").commit(2, writer(2), INFO)
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert [event.split("/", 1)[-1] for event in before[len(FILES) : len(FILES) + 1]] == ["manifest.json"]
    assert {event.split("/", 1)[-1] for event in before[: len(FILES)]} == set(FILES)
    assert {event.split("/", 1)[-1] for event in before[len(FILES) + 1 : -1]} == {"model", "learner", "learner/zero"}
    assert before[-1].startswith("sync .tmp-step-000002")
    assert after == ["sync "]  # the folder that holds the name


def test_pruning_keeps_every_model_and_the_newest_learner_states(three: Checkpoints):
    digests = {step: three.get(step).digest for step in three.steps()}
    assert three.prune(keep_last=1) == [10, 20]
    assert three.prune(keep_last=1) == []
    assert {step: three.get(step).digest for step in three.steps()} == digests
    assert [three.get(step).has_learner_state for step in (10, 20, 30)] == [False, False, True]
    for step in three.steps():
        verify(three.get(step))
    assert not any(name.startswith("learner/") for name in three.store.files(three.get(10).folder))


def test_old_staging_is_collected_and_young_staging_is_not(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, "gp")
    old, young = checkpoints.stage(1), checkpoints.stage(2)
    for path in (old, young):
        writer(1)(path)
    for path in [old, *old.rglob("*")]:
        os.utime(path, (0, 0))
    checkpoints.commit(3, writer(3), INFO)
    assert (old.exists(), young.exists()) == (False, True)
    assert checkpoints.steps() == [3]


def test_an_old_upload_that_was_cut_off_is_collected(tmp_path: Path):
    checkpoints = Checkpoints(object_store(tmp_path), "gp")
    leftover = tmp_path / "bucket/gp/checkpoints/step-000001/model/model.safetensors"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    os.utime(leftover, (0, 0))
    checkpoints.commit(2, writer(2), INFO)
    assert not leftover.exists()


def test_a_failed_write_leaves_nothing_behind(store: Store, tmp_path: Path):
    def fail(directory: Path) -> None:
        writer(1)(directory)
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        Checkpoints(store, "gp").commit(1, fail, INFO)
    with pytest.raises(DataError, match="nothing was written to model/"):
        Checkpoints(store, "gp").commit(1, lambda _: None, INFO)
    assert Checkpoints(store, "gp").steps() == []
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_ranks_fill_one_staging_directory_and_one_publishes(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, "gp")
    staged = checkpoints.stage(5)
    writer(5)(staged)  # rank 0
    (staged / "learner/rank1.pt").write_bytes(b"rank 1")  # rank 1
    checkpoint = checkpoints.publish(5, staged, INFO)
    assert "learner/rank1.pt" in checkpoint.manifest.files
    verify(checkpoint)


def test_metrics_that_are_not_finite_survive_as_nan(tmp_path: Path):
    Checkpoints(tmp_path, "gp").commit(1, writer(1), CheckpointInfo(metrics={"loss": float("inf")}))
    loss = Checkpoints(tmp_path, "gp").get(1).info.metrics["loss"]
    assert loss != loss
    manifest = (tmp_path / "gp/checkpoints/step-000001/manifest.json").read_text()
    assert json.loads(manifest)["metrics"] == {"loss": None}


@pytest.mark.parametrize("uri", ["ftp://host/x", "s3:///", "nonsense://"])
def test_a_store_nobody_knows_is_a_config_error(uri: str):
    with pytest.raises(ConfigError, match=r"store\.uri"):
        open_store(uri)


def test_the_keys_to_a_bucket_stand_in_no_message():
    uri = "s3://key:secret@bucket/runs?endpoint_override=127.0.0.1%3A1&scheme=http&region=us-east-1"
    assert open_store(uri).uri == "s3://bucket/runs"


def test_a_path_and_a_file_uri_are_the_same_store(tmp_path: Path):
    Checkpoints(f"file://{tmp_path}/with%20space", "gp").commit(1, writer(1), INFO)
    assert list_runs(tmp_path / "with space") == ["gp"]


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "runs").write_text("a file, not a folder")
    with pytest.raises(DataError, match=r"choose a store\.uri"):
        Checkpoints(tmp_path / "runs", "gp").commit(1, writer(1), INFO)


def test_an_alias_may_name_a_checkpoint_of_another_run_and_keeps_its_evidence(three: Checkpoints):
    write_alias(three.get(20), "init", run="gp-ppo", evidence={"rate": 0.5})
    assert resolve(three.store, "gp-ppo@init").name == "gp@step-000020"
    assert aliases(three.store, "gp-ppo")["init"].evidence == {"rate": 0.5}
    assert list_runs(three.store) == ["gp"]
    remove_alias(three.store, "gp-ppo", "init")
    assert aliases(three.store, "gp-ppo") == {}
    with pytest.raises(CheckpointMissing, match="no alias 'init' of gp-ppo"):
        remove_alias(three.store, "gp-ppo", "init")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"step": "x", "digest": "d"}', '{"step": 1, "digest": "d", "run": "../x"}']
)
def test_a_damaged_alias_file_is_told_and_left_out_of_the_list(three: Checkpoints, text: str):
    write_alias(three.get(20), "good")
    three.store.put("gp/aliases/bad", text.encode())
    with pytest.raises(CheckpointDamaged, match="set the alias again"):
        resolve(three.store, "gp@bad")
    assert list(aliases(three.store, "gp")) == ["good"]


def test_one_run_that_cannot_be_read_hides_no_other(tmp_path: Path):
    Checkpoints(tmp_path / "outside", "alien").commit(1, writer(1), INFO)
    Checkpoints(tmp_path / "runs", "gp").commit(1, writer(1), INFO)
    (tmp_path / "runs" / "alien").symlink_to(tmp_path / "outside" / "alien")
    (tmp_path / "runs" / "loop").symlink_to("loop")
    (tmp_path / "runs" / "a..b").mkdir()
    assert list_runs(tmp_path / "runs") == ["gp"]
