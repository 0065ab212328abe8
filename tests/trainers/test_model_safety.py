"""Model directories that nobody should load: each is refused at every door, in one sentence, before anything runs."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from envs.base import DataError
from tests.trainers.test_sources import model
from trainers import model_safety
from trainers.model_safety import is_bounded, refuse_unsafe
from trainers.nano.tokenizer import CHAT_TEMPLATE
from trainers.sources import model_directory

NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
DOUBLING = "{% set n = namespace(x='ab') %}{% for i in range(64) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
ENDLESS = "{% for i in range(99999) %}{{ 'written ' * 100 }}{% endfor %}"
RECURSIVE = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"
HUGE = "{{ 'a' * 10 ** 11 }}"


def put(name: str, value: object) -> Callable[[Path], object]:
    """Adds a file to a model directory."""
    text = value if isinstance(value, str) else json.dumps(value)
    return lambda directory: (directory / name).write_text(text)


HOSTILE = {
    "code": (put("config.json", {"auto_map": {"AutoModel": "evil.Model"}}), "auto_map"),
    "code, deeper": (put("config.json", {"text_config": {"auto_map": {"AutoConfig": "e.C"}}}), "auto_map"),
    "code of a tokenizer": (put("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["e.T", None]}}), "auto_map"),
    "code of a processor": (put("processor_config.json", {"auto_map": {"AutoProcessor": "e.P"}}), "auto_map"),
    "trust": (put("config.json", {"trust_remote_code": True}), "trust_remote_code"),
    "pickle": (put("pytorch_model.bin", "cos\nsystem\n(S'touch owned'\ntR."), r"\.bin files are never loaded"),
    "pickle of torch": (put("weights.PT", "x"), "never loaded"),
    "no object": (put("config.json", [1]), "not a JSON object"),
    "deep": (put("tokenizer_config.json", "[" * 200_000), "cannot be read"),
    "template of loops": (put("chat_template.jinja", NESTED), "does not end"),
    "template that doubles": (put("chat_template.jinja", DOUBLING), "does not end"),
    "template without end": (put("tokenizer_config.json", {"chat_template": ENDLESS}), "writes without end"),
    "template of a name": (
        put("tokenizer_config.json", {"chat_template": [{"name": "default", "template": RECURSIVE}]}), "does not end"
    ),
    "template of a processor": (put("chat_template.json", {"chat_template": HUGE}), "does not end"),
    "long template": (put("chat_template.jinja", "x" * 200_000), "characters"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock instead of five seconds of CPU: what does not end, does not end sooner either."""
    monkeypatch.setattr(model_safety, "TRIAL_S", 1.5)
    is_bounded.cache_clear()


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_directory_is_refused_in_one_sentence(tmp_path: Path, what: str):
    make, words = HOSTILE[what]
    directory = model(tmp_path / "m")
    make(directory)
    with pytest.raises(DataError, match=words) as error:
        model_directory(str(directory), store=str(tmp_path))
    assert "\n" not in str(error.value)
    assert not (Path.cwd() / "owned").exists()


@pytest.mark.parametrize(
    "template",
    [
        CHAT_TEMPLATE,
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{{ raise_exception('only tools') }}",
        "{% for m in messages %}{{ m.content | tojson(indent=2) }}{% if loop.index > 3 %}{% break %}{% endif %}{% endfor %}",
        "{{ strftime_now('%Y') }}{{ messages[0].nothing.more }}",
        "{% if",
    ],
)
def test_what_ends_is_left_to_its_loader(template: str):
    assert is_bounded(template)


def test_an_ordinary_directory_passes_and_a_template_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    directory = model(tmp_path / "m", architectures=["LlamaForCausalLM"])
    put("chat_template.jinja", CHAT_TEMPLATE)(directory)
    put("tokenizer_config.json", {"chat_template": CHAT_TEMPLATE, "auto_map": {}})(directory)
    (directory / "modeling.py").write_text("boom")  # nobody looks for it
    runs: list[object] = []
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: runs.append(a) or real(*a, **k))
    for _ in range(3):
        refuse_unsafe(directory)
    assert len(runs) == 1
