"""The report: what it shows, that nothing in it is live, and that it says no more than the intervals allow."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from envs.base import DataError
from services.reports import findings, measured, report
from services.reports.charts import Dot, Frame, Series, lines, scatter, ticks
from services.reports.figures import flop_unit, training_curves
from services.reports.measured import Measured
from tests.services.reports.synthetic import (
    ID,
    OOD,
    UNSEEN,
    evaluation,
    point,
    rate,
    suite_result,
    write_logs,
    write_run,
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = tmp_path_factory.mktemp("store")
    write_run(store)
    return report.write(str(store), "demo").read_text()


class _Tags(HTMLParser):
    """Every tag with its attributes, and whether they all close."""

    VOID = ("meta", "br", "link", "img", "input")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(page: str) -> _Tags:
    parser = _Tags()
    parser.feed(page)
    return parser


def test_the_page_needs_nothing_from_outside_and_runs_nothing(page: str):
    seen = tags(page)
    assert seen.open == []
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in seen.seen}
    for _, attributes in seen.seen:
        assert not {"src", "href", "onclick", "onload"} & attributes.keys()
    assert "http://" not in page
    assert "url(" not in page


def test_a_models_words_are_shown_and_never_obeyed(page: str):
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; [bold]{{ 7 * 7 }}" in page


def test_every_part_is_there(page: str):
    for heading in (
        "Success against compute", "Success by verification iteration", "Hands seen and hands never seen",
        "Episodes, turn by turn", "Training", "What happened", "All numbers", "Configuration and environment",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    assert "Correct solution." in page
    assert "worker replaced" in page
    assert "viter: 5" in page
    assert page.count("<svg") == 3 + 3 + 3 + 3 + 7  # compute, iterations, sft, sft branch, RL


def test_light_and_dark_come_from_the_readers_system(page: str):
    assert "prefers-color-scheme: dark" in page


def test_a_run_that_was_never_evaluated_has_a_report_of_its_training(tmp_path: Path):
    write_logs(tmp_path)
    page = report.write(str(tmp_path), "demo").read_text()
    assert "This run was not evaluated." in page
    assert "<h2>Training</h2>" in page
    assert "<h2>All numbers</h2>" not in page


def test_a_stage_alone_has_a_report(tmp_path: Path):
    write_logs(tmp_path)
    assert "reward per episode" in report.write(str(tmp_path), "demo-ppo").read_text()


def test_a_damaged_evaluation_is_named(tmp_path: Path):
    write_run(tmp_path)
    (tmp_path / "demo" / measured.FILE).write_text('{"run": "demo"')
    with pytest.raises(DataError, match=r"evaluation\.json"):
        report.write(str(tmp_path), "demo")


def test_what_is_measured_is_read_back_as_it_was(tmp_path: Path):
    measured.write(tmp_path, evaluation())
    assert measured.read(tmp_path) == evaluation()


# ---- the sentences


def of(init: tuple[float, float], ppo: tuple[float, float], sft: tuple[float, float], n: int = 512) -> Measured:
    points = [
        point(stage, 1, flops, (*shares, 0.0), n=n, is_final=True)
        for stage, flops, shares in (("init", 0, init), ("ppo", 9e9, ppo), ("sft_branch", 9e9, sft))
    ]
    return evaluation().model_copy(update={"points": tuple(points)})


def test_a_change_is_claimed_only_where_intervals_lie_apart():
    assert findings.change(rate(0.40, 512), rate(0.60, 512)) == "rose"
    assert findings.change(rate(0.60, 512), rate(0.40, 512)) == "fell"
    assert findings.change(rate(0.40, 512), rate(0.44, 512)) == "did not move beyond noise"
    assert findings.change(rate(0.40, 10), rate(0.60, 10)) == "did not move beyond noise"


def test_the_papers_contrast_is_told_when_seen():
    rl, sft, both, _ = findings.sentences(of((0.41, 0.15), (0.62, 0.16), (0.60, 0.03)))
    assert rl.startswith("RL on 300 hands: ID success rose (from 0.41 to 0.62, intervals apart")
    assert "OOD success did not move beyond noise" in rl
    assert "OOD success fell" in sft
    assert both.startswith("After training, RL solves more OOD tasks than SFT (0.16 against 0.03)")


def test_its_absence_and_its_opposite_are_told_as_plainly():
    assert "No difference" in findings.sentences(of((0.4, 0.1), (0.6, 0.1), (0.6, 0.1)))[2]
    assert "was not seen: RL solves fewer" in findings.sentences(of((0.4, 0.1), (0.6, 0.05), (0.6, 0.3)))[2]


def test_a_curriculum_is_told_and_its_steps_are_drawn_where_they_change():
    changing = evaluation().model_copy(update={"curriculum": "1 at first, 3 after 6 steps"})
    assert findings.sentences(changing)[-2] == (
        "RL trained with verification iterations that changed: 1 at first, 3 after 6 steps."
    )
    assert not any("changed" in sentence for sentence in findings.sentences(evaluation()))
    rows = [{"step": step, "viter": 1.0 if step <= 6 else 3.0} for step in range(1, 10)]
    assert [figure.caption for figure in training_curves("ppo", rows)] == ["verification iterations"]
    assert training_curves("ppo", rows[:6]) == []


def test_every_further_ood_suite_has_one_short_sentence():
    further = {"general_points/ood-visual": (0.2, 0.4, 0.1), "general_points/ood-font": (0.2, 0.21, 0.19)}
    points = []
    for point_, i in zip(of((0.4, 0.15), (0.6, 0.16), (0.6, 0.03)).points, (0, 1, 2), strict=True):
        more = {name: suite_result(name, "ood", shares[i], 512) for name, shares in further.items()}
        points.append(point_.model_copy(update={"results": {**point_.results, **more}}))
    told = findings.sentences(evaluation().model_copy(update={"points": tuple(points)}))
    assert told[3:-1] == [
        "On ood-visual, success under RL rose (0.20 to 0.40) and under SFT fell (0.20 to 0.10); RL ends above SFT.",
        "On ood-font, success under RL did not move beyond noise (0.20 to 0.21) and under SFT did not move beyond noise "
        "(0.20 to 0.19).",
    ]


def test_where_steps_are_the_measure_sentences_speak_of_steps():
    points = []
    for point_ in of((0.41, 0.15), (0.62, 0.16), (0.60, 0.03)).points:
        steps = {n: r.model_copy(update={"headline": "per_step_accuracy"}) for n, r in point_.results.items()}
        points.append(point_.model_copy(update={"results": steps}))
    stepwise = evaluation().model_copy(update={"points": tuple(points), "tasks_word": "routes"})
    rl, _, both, how = findings.sentences(stepwise)  # the per-step rate of these is 0.6 of success, over 3 n answers
    assert rl.startswith(
        "RL on 300 routes: ID per-step accuracy rose (from 0.25 to 0.37, intervals apart, n\u00a0=\u00a01536"
    )
    assert both.startswith("After training, RL gets more OOD steps right than SFT (0.10 against 0.02)")
    assert how.startswith("Per-step accuracy is the share of judged answers that are correct")


def test_without_a_comparison_nothing_is_claimed():
    alone = evaluation().model_copy(update={"points": evaluation().points[:1]})
    assert findings.sentences(alone) == [
        "Nothing was compared: the run has no init checkpoint with a branch to compare it with."
    ]


# ---- measured, charts


def test_a_branch_starts_at_init_and_runs_by_compute():
    branch = evaluation().of("ppo")
    assert branch[0].stage == "init"
    assert [p.flops for p in branch] == sorted(p.flops for p in branch)
    assert evaluation().first("id") == ID
    assert evaluation().first("ood") == OOD
    assert evaluation().of_kind("id") == (ID, UNSEEN)


def test_ticks_are_round_and_within():
    assert ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert ticks(1, 5, whole=True) == [1, 2, 3, 4, 5]
    assert all(0.013 <= tick <= 0.0171 for tick in ticks(0.013, 0.0171))


def test_a_chart_survives_what_numbers_can_be():
    dots = [Dot(x=0, y=float("nan")), Dot(x=1, y=1e-12, note="<b>"), Dot(x=2, y=1e-12), Dot(x=3, y=float("inf"))]
    svg = lines([Series(name="<i>", style="ppo", dots=dots)], x_label="&", title='"')
    assert "nan" not in svg
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert all(0 <= float(y) <= 270 for y in re.findall(r'cy="([^"]+)"', svg))
    assert lines([Series(name="x", style="ppo", dots=[])], x_label="", title="") == ""
    assert "circle" in lines([Series(name="x", style="ppo", dots=[Dot(x=1, y=5)])], x_label="", title="")


def test_names_at_the_right_edge_never_cover_each_other():
    series = [Series(name=n, style=n, dots=[Dot(x=0, y=0.5), Dot(x=1, y=0.5)]) for n in ("a", "b", "c", "d")]
    svg = lines(series, x_label="", title="", y_limits=(0, 1))
    heights = sorted(float(y) for y in re.findall(r'class="label [a-d]" x="[^"]+" y="([^"]+)"', svg))
    assert all(later - earlier >= 14 for earlier, later in pairwise(heights))


def test_points_in_a_plane_lie_where_their_numbers_say():
    series = [Series(name="a", style="ppo", dots=[Dot(x=0.5, y=0.25), Dot(x=1.0, y=1.0, note="<b>")])]
    svg = scatter(series, x_label="x", y_label="<y>", title="t", x_limits=(0.0, 1.0), y_limits=(0.0, 1.0))
    frame = Frame(0.0, 1.0, 0.0, 1.0)
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle class="dot ppo" cx="([^"]+)" cy="([^"]+)"', svg)]
    assert dots == [(round(frame.x(x), 1), round(frame.y(y), 1)) for x, y in ((0.5, 0.25), (1.0, 1.0))]
    assert "<b>" not in svg
    assert "<y>" not in svg
    assert scatter([], x_label="", y_label="", title="", x_limits=(0, 1), y_limits=(0, 1)) == ""


def test_names_beside_points_cover_neither_points_nor_each_other():
    ends = (("a", 0.5, 0.5), ("b", 0.5, 0.52), ("c", 0.5, 0.55), ("d", 0.0, 0.99), ("e", 1.0, 0.0))
    series = [Series(name=n, style=n, dots=[Dot(x=x, y=y)]) for n, x, y in ends]
    svg = scatter(series, x_label="", y_label="", title="", x_limits=(0, 1), y_limits=(0, 1))
    names = [(float(x), float(y) - 4) for x, y in re.findall(r'class="label [a-e]" x="([^"]+)" y="([^"]+)"', svg)]
    dots = [(float(x), float(y)) for x, y in re.findall(r'cx="([^"]+)" cy="([^"]+)"', svg)]
    assert len(names) == 5
    for i, (x, y) in enumerate(names):
        assert 0 < x < 460
        assert 0 < y < 270
        for other_x, other_y in [*names[:i], *dots]:
            assert abs(x - other_x) > 15 or abs(y - other_y) > 10


def test_flops_get_a_readable_unit():
    assert flop_unit(3.2e12) == (1e12, "TFLOP")
    assert flop_unit(0)[1] == "FLOP"
