"""What a service refuses to be, and the deployment file that ships."""

from pathlib import Path

import pytest
import yaml

from cluster.config import RunConfig
from envs.base import Config, ConfigError, validated
from services.config import ServiceConfig

DEPLOY = Path(__file__).parents[2] / "deploy" / "serve.yaml"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"auth": "none", "host": "0.0.0.0"}, "would open"),
        ({"store": "s3://bucket/runs"}, "state"),
        ({"port": 70000}, "port"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas=2 is less than replicas=3"),
        ({"prot": 8000}, "did you mean 'port'"),
        ({"engine": {"max_model_length": 10}}, "max_model_len"),
    ],
)
def test_what_cannot_be_is_one_sentence(data: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        validated(ServiceConfig, data, source="serve.yaml")


def test_processes_that_start_elsewhere_find_the_same_store(monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    config = ServiceConfig(store="runs").anchored()
    assert config.store == config.state == str(tmp_path / "runs")
    remote = ServiceConfig(store="s3://bucket/runs", state="state").anchored()
    assert (remote.store, remote.state) == ("s3://bucket/runs", str(tmp_path / "state"))


def test_the_shipped_file_is_one_that_serve_takes():
    from ray.serve.schema import ServeDeploySchema

    document = yaml.safe_load(DEPLOY.read_text())
    application = ServeDeploySchema.model_validate(document).applications[0]
    assert application.import_path == "services.app:build"
    config = validated(ServiceConfig, application.args, source="deploy/serve.yaml")
    assert config.auth == "token"


@pytest.mark.parametrize("config", [ServiceConfig, RunConfig])
def test_keys_to_a_bucket_are_refused_and_not_repeated(config: type[Config]):
    uri = "s3://key:hunter2@bucket/runs"
    given = {"store": uri} if config is ServiceConfig else {"name": "a", "store": {"uri": uri}}
    with pytest.raises(ConfigError, match=r"s3://…@bucket.*AWS_ACCESS_KEY_ID") as refused:
        validated(config, given, source="a file")
    assert "hunter2" not in str(refused.value)


def test_settings_that_do_not_go_together_are_one_sentence():
    with pytest.raises(ConfigError) as refused:
        validated(ServiceConfig, {"store": "s3://bucket/runs"}, source="serve.yaml")
    assert str(refused.value) == (
        "serve.yaml: the store s3://bucket/runs is remote; name a local directory for tokens in `state`"
    )
