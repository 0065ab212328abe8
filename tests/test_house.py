"""The rules of the house, read off the source: imports run one way, one home per library, light modules stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("envs", "trainers", "cluster", "services")  # each may import those before it
HOMES = {
    "vllm": ("cluster/engine/",),
    "deepspeed": ("trainers/deepspeed_engine.py",),
    "typer": tuple(
        f"services/{name}.py"
        for name in ("cli", "chaos_cli", "evaluate_cli", "runs_cli", "sweep_cli", "token_cli", "exits")
    ),
    "ray.serve": ("services/app.py", "services/engines/router.py"),
}
LIGHT = (
    "envs", "envs.suites", "envs.verify", "trainers", "trainers.config", "trainers.episode", "trainers.checkpoints",
    "trainers.runlog", "trainers.compute", "cluster", "cluster.config", "cluster.placement", "cluster.ledger",
    "cluster.rollout", "cluster.engine.reply", "services.evaluations.scoring", "services.cli",
)  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, at any depth of nesting."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_run_one_way(floor: str):
    above = (*FLOORS[FLOORS.index(floor) + 1 :], "tests")
    wrong = [
        f"{p.relative_to(ROOT)}: {name}" for p in sources(floor) for name in imports(p) if name.split(".")[0] in above
    ]
    assert wrong == []


@pytest.mark.parametrize("library", HOMES)
def test_a_heavy_library_has_one_home(library: str):
    strangers = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(*FLOORS)
        for name in imports(path)
        if (name == library or name.startswith(library + "."))
        and not str(path.relative_to(ROOT)).startswith(HOMES[library])
    ]
    assert strangers == []


def test_every_actor_is_declared_on_one_page():
    declared = [
        str(path.relative_to(ROOT))
        for path in sources(*FLOORS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr == "remote"
        and isinstance(node.value, ast.Name)
        and node.value.id == "ray"
    ]
    assert set(declared) <= {"cluster/actors.py"}


def test_light_modules_load_neither_torch_nor_ray_nor_vllm():
    heavy = "torch", "ray", "vllm", "deepspeed", "transformers"
    code = f"""import sys, importlib
for module in {LIGHT!r}:
    importlib.import_module(module)
print(sorted(set({heavy!r}) & set(sys.modules)))"""
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.strip() == "[]"


FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "sympify", "__import__", "pickle.load", "pickle.loads", "marshal.loads", "shelve.open",
    "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "os.system", "os.popen",
    "ssl._create_unverified_context", "tempfile.mktemp",
}  # fmt: skip
"""What runs or unpickles what it is given, by the name it is called with."""
FORBIDDEN_ARGUMENTS = {
    "trust_remote_code": True, "shell": True, "allow_pickle": True, "weights_only": False, "allow_unsafe": True,
}  # fmt: skip
OUTBOUND = ("httpx", "requests", "urllib")


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Every call of a file, with the name it is called by."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def unsafe(path: Path) -> Iterator[str]:
    """The calls of a file that run, unpickle or trust what they are given."""
    for call, name in calls(path):
        given = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
        wrong = [key for key, value in FORBIDDEN_ARGUMENTS.items() if key in given and given[key] is value]
        if name.startswith(OUTBOUND) and given.get("verify") is False:
            wrong.append("verify")
        if name in FORBIDDEN_CALLS or wrong:
            yield f"{path}:{call.lineno}: {name} {' '.join(wrong)}".rstrip()


def test_nothing_evaluates_text_unpickles_it_or_trusts_a_stranger():
    assert [found for path in sources(*FLOORS) for found in unsafe(path)] == []


def test_what_is_unsafe_is_seen(tmp_path: Path):
    path = tmp_path / "x.py"
    path.write_text(
        "torch.load(f)\nsubprocess.run(c, shell=True)\nAutoModel.from_pretrained(n, trust_remote_code=True)\n"
        "httpx.get(u, verify=False)\nyaml.unsafe_load(t)\neval(t)\n"
        "yaml.safe_load(t)\nrun.newest(verify=False)\nsubprocess.run(c)\nf(trust_remote_code=False)\nre.compile(p)\n"
    )
    assert [found.split(":")[1] for found in unsafe(path)] == ["1", "2", "3", "4", "5", "6"]
