"""Episodes with pictures in the report: drawn again from their keys, small, described, and never a reason to fail."""

import base64
import io
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import envs
from services.evaluations.orders import RateModel
from services.reports import measured, report, shown
from services.reports.pictures import SIDE_PX, Pictures, data_uri
from tests.services.reports import walked, walks
from tests.services.reports.test_report import tags


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store")
    with walks.registered():
        walked.write_run(path)
    return path


@pytest.fixture(scope="module")
def page(store: Path) -> str:
    with walks.registered():
        return report.write(str(store), "walk").read_text()


def opened(source: str) -> Image.Image:
    head, _, data = source.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_every_picture_lies_in_the_page_is_small_and_has_words(page: str):
    seen = tags(page)
    assert seen.open == []
    images = [attributes for tag, attributes in seen.seen if tag == "img"]
    assert len(images) > 20
    for image in images:
        found = opened(str(image["src"]))
        assert (str(found.width), str(found.height)) == (image["width"], image["height"])
        assert max(found.size) <= SIDE_PX
        assert image["alt"]
        assert image["loading"] == "lazy"
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in seen.seen}
    assert "http://" not in page


def test_positions_stand_one_by_one_with_what_they_showed(page: str):
    assert "2 · O_2: You observe an image" in page
    assert "O_1: a sign left" in page
    assert "solved: 4 positions" in page
    assert "RL while training, step 1" in page


def test_what_could_not_be_drawn_is_told_in_its_place(page: str):
    assert "no picture: panorama gone.3.back: there is no such file; fetch the town&#39;s pictures again" in page


def test_the_page_speaks_of_steps_and_of_recognition(page: str):
    assert "<h2>Per-step accuracy against compute</h2>" in page
    assert "<h2>Recognition against per-step accuracy</h2>" in page
    assert page.count('aria-label="recognition and per-step accuracy on walks/vision-') == 3
    assert "On vision-ood-visual, per-step accuracy under RL rose" in unescape(page)


def test_a_page_without_the_environment_says_so_where_pictures_would_be(store: Path):
    page = report.write(str(store), "walk").read_text()
    assert "no picture: environment &#39;walks&#39; is unknown" in page
    assert "<img" not in page
    assert "sign left" in page


def test_an_environment_that_draws_nothing_is_named():
    class Blind:
        def __init__(self, **_: object) -> None: ...

    envs.register("blind", Blind)  # type: ignore[arg-type]
    try:
        (picture,) = Pictures().of("blind", {}, ["key"], "a hand")
    finally:
        del envs._registered["blind"]
        envs._made.cache_clear()
    assert (picture.source, picture.problem) == ("", "no picture: environment blind draws none")


def test_the_first_of_each_kind_has_pictures_until_the_page_is_full(store: Path):
    with walks.registered():
        found = measured.read(store / "walk")
        everything = shown.episodes(found, {}, Pictures())
        one = len(everything[0].scenes[0].pictures[0].source)
        few = Pictures(budget=6 * one)
        cut = shown.episodes(found, {}, few)
    kinds = [(item.whose, item.end) for item in everything]
    for index, item in enumerate(everything):
        is_first = kinds.index(kinds[index]) == index
        assert all(len(scene.pictures) == len(scene.keys) * is_first for scene in item.scenes)
    drawn = [sum(len(scene.pictures) for item in found for scene in item.scenes) for found in (everything, cut)]
    assert drawn[1] >= 6
    assert few.left_out == drawn[0] - drawn[1] > 0


@pytest.mark.parametrize("shape", [(1200, 1200), (200, 800), (40, 40)])
def test_a_picture_keeps_its_shape_and_is_never_made_larger(shape: tuple[int, int]):
    pixels = np.zeros((*shape, 3), np.uint8)
    pixels[: shape[0] // 2] = (200, 30, 30)
    source, width, height = data_uri(pixels)
    scale = min(1.0, SIDE_PX / max(shape))
    assert (height, width) == (round(shape[0] * scale), round(shape[1] * scale))
    back = np.asarray(opened(source).convert("RGB"))
    assert np.abs(back[2, 2].astype(int) - (200, 30, 30)).max() < 12


def test_the_smaller_of_two_formats_is_taken():
    flat = np.full((300, 300, 3), 80, np.uint8)
    noisy = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert data_uri(flat)[0].startswith("data:image/png")
    assert data_uri(noisy)[0].startswith("data:image/jpeg")


def test_files_from_before_positions_and_pictures_are_shown_as_they_were(store: Path):
    found = measured.read(store / "walk")
    assert found is not None
    old = found.points[0].episodes[0].model_dump(exclude={"positions", "options"})
    old["turns"] = [{k: v for k, v in t.items() if k not in ("position", "recognised")} for t in old["turns"]]
    item = type(found.points[0].episodes[0]).model_validate(old)
    point = found.points[0].model_copy(update={"episodes": (item,)})
    (again,) = shown.episodes(found.model_copy(update={"points": (point,)}), {}, Pictures())
    assert (len(again.scenes), again.answers) == (1, len(old["turns"]))


def test_recognition_is_counted_over_positions(store: Path):
    found = measured.read(store / "walk")
    assert found is not None
    result = found.points[0].results[walked.SUITES[0]]
    assert isinstance(result.recognition, RateModel)
    assert result.first_answers is not None
    assert result.recognition.n == result.first_answers.n > result.n
    assert result.main == result.per_step_accuracy
