"""The command line: what each mistake is answered with, and what each command starts."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from cluster.interrupts import Preempted
from envs.base import ConfigError, DataError
from services import cli, exits
from tests.services.conftest import commit
from tests.services.reports.synthetic import write_run
from trainers.lease import LeaseHeld, LeaseLost

ROOT = Path(__file__).parents[2]
NANO = ROOT / "deploy" / "runs" / "nano-gp-l.yaml"
GOOD_LINE = {
    "env": "general_points",
    "options": {"target": 24, "face_cards": "ten"},
    "state": {"cards": ["C7", "CK", "C7", "CA"]},
    "attempts_left": 5,
    "answer": '{"cards": ["7", "K", "7", "A"], "number": [7, 10, 7, 1], "formula": "7+10+7*1=24"}',
}


def viter(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), input=stdin, env={"RAY_ADDRESS": None})


def refused(result: Result, code: int) -> str:
    """The one sentence of a refusal with this exit code."""
    assert result.exit_code == code, (result.exit_code, result.stderr, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("viter: ")
    assert "Traceback" not in result.output
    return lines[0]


def run_file(directory: Path, **changes: Any) -> Path:
    data = yaml.safe_load(NANO.read_text()) | {"store": {"uri": str(directory / "runs")}} | changes
    path = directory / "run.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


# ---- what a dry run shows


def test_a_dry_run_prints_the_resolved_run_and_its_placement_and_starts_nothing(tmp_path: Path):
    result = viter("train", str(run_file(tmp_path)), "--dry-run", "--set", "ppo.viter=10")
    assert result.exit_code == 0, result.stderr
    assert yaml.safe_load(result.stdout.split("\nactor")[0])["ppo"]["viter"] == 10
    assert "rollout" in result.stdout
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_says_how_tasks_look_and_what_will_be_measured_and_is_a_run_file_itself(tmp_path: Path):
    seen = run_file(
        tmp_path,
        environment={"name": "general_points", "options": {"modality": "vision", "suits": "black", "resolution": 128}},
        evaluation={"n": 8},
    )
    shown = yaml.safe_load(viter("train", str(seen), "--dry-run").stdout.split("\nactor")[0])
    assert shown["environment"]["options"] | {"scene": "plain", "resolution": 128} == shown["environment"]["options"]
    assert "viter" not in shown["environment"]["options"]
    assert shown["evaluation"]["suites"] == ["general_points/vision-id", "general_points/vision-ood-rule"]
    seen.write_text(yaml.safe_dump(shown))
    assert yaml.safe_load(viter("train", str(seen), "--dry-run").stdout.split("\nactor")[0]) == shown


@pytest.mark.parametrize("arguments", [["train", str(NANO), "--dry-run"], ["verify"], ["--help"]])
def test_light_commands_load_nothing_heavy(arguments: list[str]):
    code = (
        "import sys\nfrom services.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', [m for m in ('torch', 'ray', 'vllm', 'transformers') if m in sys.modules])"
    )
    started = time.monotonic()
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, input="", timeout=60)
    assert "HEAVY []" in seen.stdout, seen.stdout + seen.stderr
    print(f"{arguments[0]} took {time.monotonic() - started:.2f} s")


# ---- mistakes in a run file


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("ppo.vitr=10", "did you mean 'viter'"),
        ("ppo.viter=many", "ppo.viter: 'many'"),
        ("ppo.viter=0", "ppo.viter: 0"),
        ("ppo.viter=[[0, 1], [16, 3]]", "ppo.viter: [[0, 1], [16, 3]]: step 16 is never reached: ppo.steps=16"),
        ("ppo.viter=[[0, 1], [6, 5000]]", "ppo.viter: 5000: general_points options: viter"),
        ("ppo.episodes=129", "does not divide"),
        ("environment.name=general_pints", "general_points"),
        ("environment.options.face_cards=eleven", "face_cards"),
        ("ppo.viter", "write it as key.path=value"),
        ("name.first=x", "not a section"),
        ("ppo.viter=[1", "ppo.viter"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_the_key(tmp_path: Path, override: str, says: str):
    assert says in refused(viter("train", str(run_file(tmp_path)), "--set", override), 2)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("evaluation.suites=[general_points/odd]", "suite 'general_points/odd' is unknown"),
        ("evaluation.suites=[chess/id]", "environment 'chess' is unknown"),
    ],
)
def test_a_suite_that_does_not_exist_is_named_before_anything_trains(tmp_path: Path, override: str, says: str):
    code = 3 if "odd" in override else 2
    assert says in refused(viter("train", str(run_file(tmp_path)), "--dry-run", "--set", override), code)


def test_a_missing_or_unreadable_run_file_is_named(tmp_path: Path):
    assert "nowhere.yaml" in refused(viter("train", str(tmp_path / "nowhere.yaml")), 2)
    assert str(tmp_path) in refused(viter("train", str(tmp_path)), 2)
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: [unclosed")
    assert "not valid YAML" in refused(viter("train", str(bad)), 2)
    bad.write_bytes(b"name: \xff\xfe")
    refused(viter("train", str(bad)), 2)


KEYS = st.sampled_from(
    ["name", "sft", "ppo", "model", "rollout", "learner", "store", "environment", "evaluation", "pp0"]
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | KEYS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(KEYS, JUNK, min_size=1, max_size=3),
    inner=st.none() | st.tuples(KEYS, st.text(max_size=6), JUNK),
)
def test_whatever_stands_in_a_run_file_a_refusal_is_one_sentence(tmp_path: Path, changes: dict, inner: tuple | None):
    data = yaml.safe_load(NANO.read_text()) | changes
    if inner and isinstance(data.get(inner[0]), dict):
        data[inner[0]] = {**data[inner[0]], inner[1]: inner[2]}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(data))
    result = viter("train", str(path), "--dry-run")
    if result.exit_code:
        refused(result, result.exit_code)
        assert result.exit_code in (2, 3, 4)


def test_a_wrong_sweep_is_one_sentence_before_anything_is_trained(tmp_path: Path):
    at = ("--set", f"store.uri={tmp_path}")
    for over, says in (
        ("ppo.vitr=1,2", "did you mean 'viter'"),
        ("ppo.viter=1,0", "ppo.viter: 0: at least 1"),
        ("ppo.viter", "write it as section.key=VALUE,VALUE"),
    ):
        assert says in refused(viter("sweep", str(NANO), "--over", over, *at), 2)
    assert "4096 GPU" in refused(viter("sweep", str(NANO), "--over", "placement.learner_gpus=0,4096", *at), 4)
    assert "nobody" in refused(viter("sweep", str(NANO), "--over", "model.source=nobody@latest", *at), 3)
    assert list(tmp_path.iterdir()) == []


# ---- mistakes about the world


def test_a_run_that_this_machine_cannot_hold_is_refused_before_anything_starts(tmp_path: Path):
    path = run_file(tmp_path, placement={"learner_gpus": 4096.0})
    for arguments in (["--dry-run"], []):
        assert "4096 GPU" in refused(viter("train", str(path), *arguments), 4)
    assert viter("train", str(path), "--dry-run", "--address", "ray://elsewhere:10001").exit_code == 0
    assert not (tmp_path / "runs").exists()


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    path = run_file(tmp_path, model={"source": "nobody@latest"}, sft=None)
    assert "nobody" in refused(viter("train", str(path)), 3)


def test_a_model_that_reads_text_alone_is_refused_for_a_task_in_pictures(tmp_path: Path):
    file = ROOT / "deploy" / "runs" / "nano-gp-vl.yaml"
    reads = ROOT / "deploy" / "models" / "nano-gp-base"
    changed = ("--set", f"model.source={reads}", "--set", "model.digest=null", "--set", f"store.uri={tmp_path}")
    assert "this model reads text alone" in refused(viter("train", str(file), *changed), 3)
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_nothing_says_so(tmp_path: Path):
    write_run(tmp_path)
    assert "run dmo: no log" in refused(viter("report", "dmo", "--store", str(tmp_path)), 3)
    assert viter("report", "demo", "--store", str(tmp_path)).stdout.strip() == f"{tmp_path}/demo/report.html"


def test_a_service_that_is_not_there_is_worth_a_retry():
    assert "nobody answers" in refused(viter("eval", "run@latest", "--url", "http://127.0.0.1:9"), 75)
    assert "--option resolution: write it as key" in refused(viter("eval", "run@latest", "--option", "resolution"), 2)


def test_submitting_to_a_dead_address_is_worth_a_retry(tmp_path: Path):
    said = refused(viter("submit", str(run_file(tmp_path)), "--address", "http://127.0.0.1:9"), 75)
    assert "http://127.0.0.1:9" in said


def test_an_open_service_beyond_loopback_is_refused(tmp_path: Path):
    assert "auth" in refused(viter("serve", "--store", str(tmp_path), "--host", "0.0.0.0", "--no-auth"), 2)


def test_a_store_that_is_not_there_is_refused_before_serving(tmp_path: Path):
    assert "nothing-here" in refused(viter("serve", "--store", str(tmp_path / "nothing-here")), 2)


def test_a_taken_port_is_named(tmp_path: Path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert str(port) in refused(viter("serve", "--store", str(tmp_path), "--port", str(port)), 2)


# ---- verify


def test_verify_answers_line_by_line_and_tells_of_bad_ones():
    lines = [json.dumps(GOOD_LINE), "nonsense", json.dumps({**GOOD_LINE, "env": "chess"}), json.dumps(GOOD_LINE)]
    result = viter("verify", stdin="\n".join(lines) + "\n")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 2
    assert [answer.get("status") for answer in answers] == ["correct", None, None, "correct"]
    assert "line 2" in answers[1]["error"]
    assert "line 3: env" in answers[2]["error"]
    assert answers[0] == {
        "reward": 5.0, "status": "correct", "feedback": "Correct solution.", "terminated": True, "truncated": False,
    }  # fmt: skip


def test_verify_of_good_lines_exits_with_0():
    assert viter("verify", stdin=json.dumps(GOOD_LINE)).exit_code == 0


def test_verify_takes_any_bytes():
    result = viter("verify", stdin=b"\xff\xfe\x00\n" + json.dumps(GOOD_LINE).encode() + b"\n")
    assert result.exit_code == 2
    assert json.loads(result.stdout.splitlines()[1])["status"] == "correct"


# ---- routes and rails


def rail(path: Path, *arguments: str) -> list[dict[str, Any]]:
    result = viter("rail", str(path), *arguments)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_routes_of_a_city_are_written_and_their_rails_printed(tmp_path: Path):
    path = tmp_path / "routes.json"
    result = viter("routes", "gridport", "--n", "20", "--out", str(path))
    assert (result.exit_code, result.stdout) == (0, f"{path}\n")
    written, _ = json.loads(path.read_text())
    assert len(written) == 20
    lines = rail(path, "--route", "3", "--straight-line-length", "1")
    keys = ["action", "observation", "intersection", "instruction", "instruction_idx", "heading", "geocode"]
    assert all(list(line) == keys for line in lines)
    legs = len(written[3]["route_results"]["geocode_list"])
    assert len(lines) == 2 * legs + 1
    assert lines[0]["heading"] == written[3]["init_heading"]
    assert lines[-1]["action"] == "stop()"
    relative = rail(path, "--route", "3", "--straight-line-length", "1", "--actions", "relative")
    assert [line["instruction"] for line in relative] == [line["instruction"] for line in lines]
    assert relative[0]["action"].removeprefix("turn_direction(").rstrip(")") in lines[0]["instruction"]


def test_the_originals_headings_are_had_by_one_option(tmp_path: Path):
    path = tmp_path / "routes.json"
    viter("routes", "gridport", "--n", "40", "--out", str(path))
    ours, theirs = (
        [rail(path, "--route", str(n), "--actions", "relative", *more) for n in range(40)]
        for more in ([], ["--legacy-headings"])
    )
    changed = [a["action"] != b["action"] for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)]
    assert any(changed)
    assert not all(changed)


def test_bad_rails_and_routes_are_one_sentence_with_the_code_of_their_kind(tmp_path: Path):
    path = tmp_path / "routes.json"
    viter("routes", "gridport", "--n", "2", "--out", str(path))
    assert "--route 2: " in refused(viter("rail", str(path), "--route", "2"), 2)
    assert "actions: 'compass'" in refused(viter("rail", str(path), "--actions", "compass"), 2)
    assert "drop_rate: 1.0" in refused(viter("rail", str(path), "--drop-rate", "1"), 2)
    assert "No such file" in refused(viter("rail", str(tmp_path / "none.json")), 3)
    path.write_text('[[{"init_heading": 7}], 0]')
    assert "routes.json: route 0: " in refused(viter("rail", str(path)), 3)
    assert "known cities are gridport" in refused(viter("routes", "atlantis", "--out", str(path)), 2)
    assert "the lower number comes first" in refused(
        viter("routes", "gridport", "--legs", "3", "2", "--out", str(path)), 2
    )
    assert "No such file" in refused(
        viter("routes", "gridport", "--n", "2", "--out", str(tmp_path / "no" / "x.json")), 3
    )


def test_names_of_any_kind_are_printed_as_they_are(tmp_path: Path):
    path = tmp_path / "routes.json"
    viter("routes", "gridport", "--n", "1", "--out", str(path))
    [[route], _] = json.loads(path.read_text())
    told = 'Joe\'s "Best" {Pizza}: 北京 } is on your left'
    first = route["milestone_info"].partition("}")[0]
    seen = first.partition('"landmarks": "')[2].partition('"')[0]
    route["milestone_info"] = route["milestone_info"].replace(seen, told, 1)
    path.write_text(json.dumps([[route], 0]))
    lines = rail(path, "--straight-line-length", "0")
    assert lines[1]["observation"] == told
    assert lines[1]["intersection"] == "You observe an intersection"


# ---- listings, exit codes


def test_an_alias_is_given_shown_and_taken(tmp_path: Path):
    commit(tmp_path, "nano-a", 10)
    store = ["--store", str(tmp_path)]
    assert viter("alias", "nano-a@step-000010", "mine", *store).stdout == "nano-a@mine is nano-a@step-000010 now\n"
    assert viter("runs", *store).stdout == "nano-a\t1 checkpoints\tnano-a@step-000010\tmine=nano-a@step-000010\n"
    assert viter("alias", "nano-a", "mine", "--delete", *store).exit_code == 0
    assert "no alias 'mine' of nano-a" in refused(viter("alias", "nano-a", "mine", "--delete", *store), 3)
    assert "'best' cannot be set" in refused(viter("alias", "nano-a@latest", "best", *store), 3)
    assert "no alias 'other'" in refused(viter("alias", "nano-a@other", "mine", *store), 3)


def test_runs_of_an_empty_store_are_none(tmp_path: Path):
    assert viter("runs", "--store", str(tmp_path)).exit_code == 0


def test_an_error_is_known_by_its_nearest_class():
    class Nearer(DataError):
        pass

    assert exits.exit_code(Nearer("x")) == 3
    assert exits.exit_code(ConfigError("x")) == 2
    assert exits.exit_code(ValueError("x")) == 1


def test_what_an_actor_raised_is_told_as_itself(capsys: pytest.CaptureFixture[str]):
    class Wrapped(Exception):
        cause = DataError("runs/a: gone; look elsewhere")

    with pytest.raises(BaseException) as ended, exits.plain_errors():
        raise Wrapped("many lines\nof a remote traceback")
    assert ended.value.exit_code == 3  # type: ignore[attr-defined]
    assert capsys.readouterr().err == "viter: runs/a: gone; look elsewhere\n"


def test_an_interrupt_is_130_and_a_bug_keeps_its_traceback():
    with pytest.raises(BaseException) as ended, exits.plain_errors():
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError), exits.plain_errors():
        raise ZeroDivisionError


def test_what_another_try_may_mend_is_75():
    for error in (Preempted(), LeaseHeld("held"), LeaseLost("lost")):
        with pytest.raises(BaseException) as ended, cli.plain_errors():
            raise error
        assert ended.value.exit_code == 75  # type: ignore[attr-defined]


def test_a_bug_in_a_job_keeps_its_traceback_and_ends_with_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("VITER_JOB", "1")
    with pytest.raises(BaseException) as ended, cli.plain_errors():
        raise ZeroDivisionError("by nothing")
    assert ended.value.exit_code == 1  # type: ignore[attr-defined]
    said = capsys.readouterr()
    assert json.loads(said.out) == {"viter_exit": 1, "error": "ZeroDivisionError: by nothing"}
    assert "Traceback" in said.err


def test_a_job_ends_with_its_exit_code_as_a_line_of_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("VITER_JOB", "1")
    with pytest.raises(BaseException), exits.plain_errors():  # noqa: B017 - typer's way out
        raise DataError("gone")
    assert json.loads(capsys.readouterr().out)["viter_exit"] == 3
