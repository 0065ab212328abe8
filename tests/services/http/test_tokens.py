"""Tokens at rest, and what a running service makes of a file that changes under it."""

import json
import logging
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from envs.base import ConfigError, DataError
from services.http import tokens
from services.http.tokens import TOKENS_FILE, Tokens, ensure_token, needed_scope


@pytest.fixture
def watch(tmp_path: Path) -> Callable[[], Tokens]:
    """Tokens that look at their file whenever they are asked."""
    clock = iter(range(10**6))
    return lambda: Tokens(tmp_path / TOKENS_FILE, now=lambda: float(next(clock)))


def test_the_token_is_told_once_and_kept_as_a_hash(tmp_path: Path):
    token = ensure_token(tmp_path)
    assert token is not None
    assert ensure_token(tmp_path) is None
    assert token not in (tmp_path / "tokens.json").read_text()
    assert (tmp_path / "token").read_text().strip() == token
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("token", "tokens.json")} == {0o600}
    (record,) = tokens.read(tmp_path / "tokens.json")
    assert (record.name, record.scope, record.expires) == ("operator", "train", None)


def test_damaged_and_missing_tokens_are_one_sentence(tmp_path: Path):
    with pytest.raises(DataError, match="viter serve"):
        Tokens.load(tmp_path)
    ensure_token(tmp_path)
    good = json.loads((tmp_path / TOKENS_FILE).read_text())
    for damage in ("", "{", "{}", "[1]", json.dumps([good[0] | {"scope": "root"}]), json.dumps([good[0] | {"x": 1}])):
        (tmp_path / TOKENS_FILE).write_text(damage)
        with pytest.raises(DataError, match="damaged"):
            Tokens.load(tmp_path)


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot keep"):
        ensure_token(tmp_path / "file" / "service")


def test_each_token_has_a_name_a_scope_and_perhaps_an_end(tmp_path: Path):
    first = ensure_token(tmp_path)
    second = tokens.create(tmp_path, "ci", "evaluate", 1.0)
    known = Tokens.load(tmp_path)
    assert known.find(first).name == "operator"
    assert known.find(second).allows("evaluate")
    assert not known.find(second).allows("train")
    with pytest.raises(ConfigError, match="one of this name"):
        tokens.create(tmp_path, "ci", "read", None)
    for name in ("", "../x", "a b", "x" * 65, "-x", "a\nb"):
        with pytest.raises(ConfigError, match="token name"):
            tokens.create(tmp_path, name, "read", None)
    tokens.revoke(tmp_path, "ci")
    assert [record.name for record in tokens.read(tmp_path / TOKENS_FILE)] == ["operator"]
    with pytest.raises(ConfigError, match="known are: operator"):
        tokens.revoke(tmp_path, "ci")


def test_an_expired_token_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    token = tokens.create(tmp_path, "ci", "read", 2.0)
    known = Tokens.load(tmp_path)
    assert known.find(token) is not None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * tokens.DAY_S)
    assert known.find(token) is None


def test_a_running_service_follows_its_file(tmp_path: Path, watch: Callable[[], Tokens]):
    first = ensure_token(tmp_path)
    known = watch()
    assert known.find(first) is not None
    second = tokens.create(tmp_path, "ci", "read", None)
    assert known.find(second) is not None
    tokens.revoke(tmp_path, "operator")
    assert known.find(first) is None
    assert known.find(second) is not None


def test_a_change_counts_after_a_second_and_not_before(tmp_path: Path):
    moments = iter([0.0, 0.0, 0.9, 1.1, 1.1])
    first = ensure_token(tmp_path)
    known = Tokens(tmp_path / TOKENS_FILE, now=lambda: next(moments))
    assert known.find(first) is not None
    tokens.revoke(tmp_path, "operator")
    assert known.find(first) is not None
    assert known.find(first) is None


@pytest.mark.parametrize("damage", ["vanished", "cut", "empty", "a directory", "unreadable"])
def test_whatever_is_wrong_with_the_file_nobody_gets_in_and_the_log_says_why_once(
    tmp_path: Path, watch: Callable[[], Tokens], caplog: pytest.LogCaptureFixture, damage: str
):
    token = ensure_token(tmp_path)
    known, path = watch(), tmp_path / TOKENS_FILE
    assert known.find(token) is not None
    good = path.read_bytes()
    path.unlink()
    if damage == "a directory":
        path.mkdir()
    elif damage == "unreadable":
        path.symlink_to(path)
    elif damage != "vanished":
        path.write_bytes(good[: len(good) // 2] if damage == "cut" else b"")
    with caplog.at_level(logging.ERROR, logger="viter.tokens"):
        assert [known.find(token) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1
    assert "nobody is let in" in caplog.text
    path.rmdir() if damage == "a directory" else path.unlink(missing_ok=True)
    path.write_bytes(good)
    assert known.find(token) is not None


def test_a_secret_that_kubernetes_turns_over_is_followed(tmp_path: Path, watch: Callable[[], Tokens]):
    """A mounted secret is a link to a link to a directory, and a new version swaps the middle one."""
    old, new = (tokens.create(tmp_path / version, "ci", "read", None) for version in ("v1", "v2"))
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / TOKENS_FILE).symlink_to(f"data/{TOKENS_FILE}")
    known = watch()
    assert known.find(old) is not None
    (tmp_path / "data.next").symlink_to("v2")
    (tmp_path / "data.next").rename(tmp_path / "data")
    assert (known.find(old), known.find(new).name) == (None, "ci")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/evaluations", "read"),
        ("POST", "/v1/chat/completions", "read"),
        ("POST", "/v1/episodes", "read"),
        ("POST", "/v1/verify", "read"),
        ("POST", "/v1/evaluations/eval-1/cancel", "evaluate"),
        ("POST", "/v1/runs", "train"),
        ("DELETE", "/v1/runs/a/aliases/b", "train"),
        ("POST", "/v1/what-is-to-come", "train"),
    ],
)
def test_a_route_needs_what_it_leaves_behind(method: str, path: str, scope: str):
    assert needed_scope(method, path) == scope
