"""What may be asked to be trained over HTTP: as the command line checks it, and no files but those below the store."""

from pathlib import Path
from typing import Any

import pytest

from envs.base import ConfigError, ViterError
from services.runs.orders import RunOrder, config_of
from tests.trainers.checkpoint_files import object_store
from trainers.storage import open_store


def asked(store: Path, run: dict[str, Any] | None = None, **more: Any) -> Any:
    return config_of(RunOrder(run=run, **more), open_store(store))


def run(**more: Any) -> dict[str, Any]:
    return {"name": "gp", "sft": {"steps": 1}} | more


def test_a_shipped_run_is_taken_by_name_with_keys_set(tmp_path: Path):
    config = asked(tmp_path, file="nano-gp-l", set={"ppo.viter": 10, "name": "mine", "store.keep_last": 3})
    assert (config.name, config.ppo.viter, config.store.keep_last) == ("mine", 10, 3)
    assert config.store.uri == str(tmp_path)
    assert config.model.source == "deploy/models/nano-gp-base"


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"file": "nano-gp-1"}, "file: 'nano-gp-1' is not shipped; the nearest are nano-gp-l"),
        ({"file": "../../etc/passwd"}, "is not shipped"),
        ({"run": run(), "set": {"sft.stebs": 2}}, "run: sft.stebs: unknown key; did you mean 'steps'"),
        ({"run": run(), "set": {"name.first": 2}}, "set name.first: name is not a section"),
        ({"run": run(), "set": {"sft.steps": 0}}, "run: sft.steps: 0: "),
        ({"run": {"name": "gp"}}, "at least one of the sections"),
        ({"run": run(name="../x")}, "run: name: '../x'"),
        ({"run": run(name="service")}, "folder of the service's own"),
        ({"run": run(store={"uri": "s3://elsewhere/runs"})}, "store.uri: 's3://elsewhere/runs' is not this service's"),
        ({"run": run(store=3)}, "run: store: 3"),
        ({"run": run(model=3)}, "run: model: 3"),
        ({"run": run(environment={"options": 3})}, "run: environment.options: 3"),
    ],
)
def test_a_wrong_order_is_one_sentence_with_its_key(order: dict[str, Any], words: str, tmp_path: Path):
    with pytest.raises(ConfigError) as told:
        asked(tmp_path, **order)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("order", [{}, {"run": run(), "file": "nano-gp-l"}, {"run": run(), "fiel": 1}])
def test_an_order_names_one_run(order: dict[str, Any]):
    with pytest.raises(ValueError, match="either|extra"):
        RunOrder.model_validate(order)


@pytest.mark.parametrize("source", ["nano", "gp-sft@latest", "Qwen/Qwen3-VL-8B-Instruct", "deploy/models/nano-gp-base"])
def test_models_of_the_store_the_hub_and_the_shipped_ones_are_allowed(source: str, tmp_path: Path):
    assert asked(tmp_path, run(model={"source": source})).model.source == source


@pytest.mark.parametrize(
    "source",
    ["/etc", "../x", "./model", "~/model", "deploy/models", "deploy/models/../runs", "envs/virl", "a/b/c", "a", "s3://x/y"],
)
def test_other_models_of_the_machine_are_not(source: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="over HTTP a model is"):
        asked(tmp_path, run(model={"source": source}))


def test_a_corpus_lies_in_the_store(tmp_path: Path):
    store = tmp_path / "store"
    (store / "corpora").mkdir(parents=True)
    (store / "corpora" / "mine.jsonl").write_text("{}")
    (tmp_path / "secret.jsonl").write_text("{}")
    (store / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    config = asked(store, run(sft={"steps": 1, "corpus": "corpora/mine.jsonl"}))
    assert config.sft.corpus == str(store / "corpora" / "mine.jsonl")
    assert asked(store, run(sft={"steps": 1, "corpus": "nano-base"})).sft.corpus == "nano-base"
    for path in ("/etc/passwd", "../secret.jsonl", "link.jsonl", "absent.jsonl", "a\0b", ".", str(store / "corpora")):
        with pytest.raises(ConfigError, match=r"sft\.corpus.*below the service's store"):
            asked(store, run(sft={"steps": 1, "corpus": path}))


@pytest.mark.parametrize("key", ["routes", "panoramas", "anything"])
def test_files_that_an_environment_reads_lie_in_the_store(key: str, tmp_path: Path):
    options = {"name": "virl", "options": {key: "/etc/passwd"}}
    with pytest.raises(ConfigError, match=rf"environment\.options\.{key}.*below the service's store"):
        asked(tmp_path, run(environment=options))


def test_a_remote_store_holds_no_files_for_runs(tmp_path: Path):
    order = RunOrder(run=run(sft={"steps": 1, "corpus": "mine.jsonl"}))
    with pytest.raises(ViterError, match="which is remote here"):
        config_of(order, object_store(tmp_path))
