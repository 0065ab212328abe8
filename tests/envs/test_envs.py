import importlib.metadata
import json
import subprocess
import sys

import pytest

import envs
from envs import corpus, suites, verify
from envs.base import Config, ConfigError
from envs.task import Message, State, Status, Task, Verdict


class Echo:
    """Say the word: the smallest environment there is."""

    name = "echo"

    class Options(Config):
        word: str = "yes"

    def __init__(self, **options):
        self.options = self.Options(**options)

    def sample(self, *counters):
        return Task(environment="echo", options=self.options.model_dump(), id=repr(counters), data={})

    def start(self, task):
        return State(attempts_left=1)

    def prompt(self, task, state):
        return (Message(role="user", text=f"Say {self.options.word}"),)

    def verify(self, task, state, answer):
        right = answer == self.options.word
        status = Status.CORRECT if right else Status.WRONG_VALUE
        verdict = Verdict(reward=float(right), status=status, feedback="", terminated=right, truncated=not right)
        return verdict, State(attempts_left=0, is_over=True)

    def feedback(self, verdict):
        return Message(role="user", text=verdict.feedback)

    def expert(self, task, state, *counters):
        return self.options.word


@pytest.fixture
def echo():
    envs.register("echo", Echo)
    yield
    del envs._registered["echo"]
    envs._made.cache_clear()


def test_equal_calls_make_the_same_object():
    assert envs.make("general_points", viter=3, target=24) is envs.make("general_points", target=24, viter=3)
    assert envs.make("general_points", viter=3) is not envs.make("general_points", viter=4)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'general_points'"):
        envs.make("general_point")
    with pytest.raises(ConfigError, match="known environments are general_points"):
        envs.make("chess")
    with pytest.raises(ConfigError, match="options must be JSON values"):
        envs.make("general_points", viter=object())


@pytest.mark.usefixtures("echo")
def test_a_registered_environment_is_made_evaluated_and_taught_like_any_other():
    assert "echo" in envs.names()
    assert envs.make("echo", word="no").options.word == "no"
    assert suites.default_suites("echo") == ("echo/id",)
    assert len(suites.load("echo/id", 5).tasks) == 5
    document = corpus.expert_document(envs.make("echo"), 1)
    assert [message.text for message in document.messages] == ["Say yes", "yes"]
    with pytest.raises(ConfigError, match="knows no wrong answers"):
        corpus.expert_document(envs.make("echo"), 1, retry_share=1.0)
    with pytest.raises(verify.LineError, match=r"line 1: env: 'echo' has no states"):
        verify.verify_line(json.dumps({"env": "echo", "options": {}, "state": {}, "attempts_left": 1, "answer": ""}), 1)


def test_an_entry_point_adds_an_environment(monkeypatch: pytest.MonkeyPatch):
    point = importlib.metadata.EntryPoint("echo", f"{__name__}:Echo", envs.ENTRY_POINTS)
    monkeypatch.setattr(envs, "entry_points", lambda group: [point] if group == envs.ENTRY_POINTS else [])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    envs._entry_points.cache_clear()
    try:
        assert envs.names() == ("echo", "general_points", "virl")
        assert envs.make("echo").expert(None, None) == "yes"
    finally:
        envs._entry_points.cache_clear()
        envs._made.cache_clear()


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, envs, envs.suites, envs.verify, envs.corpus; print({'torch', 'ray', 'gymnasium'} & {*sys.modules})"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n"
