"""The image: what it copies exists, what it installs is pinned, and its shell lines are shell."""

import importlib.metadata
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from cluster.job_shipment import SHIPPED

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "image" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Word and argument of each instruction, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def all_of(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def test_it_has_only_instructions_that_docker_knows_and_ends_as_a_user():
    words = [word for word, _ in instructions()]
    assert words[0] == "FROM"
    known = ["FROM", "RUN", "WORKDIR", "ARG", "ENV", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"]
    assert set(words) <= set(known)
    assert all_of("USER") == ["1000:1000"]
    assert not [word for word in words[words.index("USER") :] if word in ("RUN", "COPY")]


@pytest.mark.parametrize("line", all_of("RUN"))
def test_a_shell_line_is_shell(line: str):
    subprocess.run(["bash", "-n", "-c", line], check=True)


def test_a_broken_shell_line_would_be_noticed():
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(["bash", "-n", "-c", "apt-get update && && true"], check=True, capture_output=True)


def test_what_it_copies_exists_and_is_not_ignored():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    copied = [source for line in all_of("COPY") for source in line.split()[:-1]]
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored
    assert {source.rstrip("/") for source in copied} >= set(SHIPPED)
    assert not {".venv", ".git", "runs", "tests"} & {source.rstrip("/") for source in copied}
    assert ignored.index("!deploy/runs") > ignored.index("**/runs")  # the run files are no run


def test_it_installs_complete_pinned_lists_without_a_resolver():
    installs = [line for line in all_of("RUN") if "pip install" in line]
    assert len(installs) == 2
    assert all("--no-deps" in line for line in installs)
    (default,) = [argument.partition("=")[2] for argument in all_of("ARG") if argument.startswith("REQUIREMENTS")]
    lists = [ROOT / default, ROOT / "requirements" / "cpu.txt"]
    for path in lists:
        pins = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert f"ray=={importlib.metadata.version('ray')}" in pins
        assert all(re.fullmatch(r"[\w.-]+==[\w.!+-]+", pin) for pin in pins)
    (base,) = all_of("FROM")
    assert fnmatch(base, "python:3.11-*")


def test_kuberay_finds_what_it_calls():
    packages = all_of("RUN")[0]
    for package in ("wget", "gcc", "g++"):
        assert f" {package} " in packages  # probes; Triton's and vLLM's compilers
    assert "ray --version" in all_of("RUN")[-1]
