import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from envs.base import DataError
from envs.virl import album, panoramas
from envs.virl.panoramas import INDEX, Panoramas, read_index

HERE, THERE, FAR = (40.7501, -73.9903), (40.7502, -73.9903), (40.76, -73.99)


def north_is_red(height: int = 200) -> np.ndarray:
    """Red to the north, green east, blue south and white west, each a quarter wide."""
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)], np.uint8)
    quarters = ((np.arange(2 * height) / height * 180 + 45) // 90).astype(int) % 4
    return np.broadcast_to(colours[quarters], (height, 2 * height, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / INDEX).write_bytes(pickle.dumps({HERE: "here-1", THERE: "there_2"}))
    for name, rotation in (("here-1", 0), ("there_2", 90)):
        pixels = np.roll(north_is_red(), rotation * 400 // 360, axis=1)
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg", quality=95)
        (tmp_path / f"{name}.metadata.json").write_text(json.dumps({"rotation": rotation, "lat": 1}))
    panoramas.panoramas.cache_clear()
    panoramas._loaded.cache_clear()
    return tmp_path


def middle(view: np.ndarray) -> list[int]:
    """The colour in the middle, each part as 0 or 255."""
    size = len(view)
    return (np.rint(view[size // 2, size // 2] / 255) * 255).astype(int).tolist()


@pytest.mark.parametrize("place", [HERE, THERE])
def test_views_look_where_they_say_whatever_the_rotation_of_the_file(folder: Path, place: tuple[float, float]):
    seen = [middle(Panoramas(str(folder)).view(place, heading, 64)) for heading in (0, 90, 180, 270, 360, -90)]
    assert seen == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [255, 0, 0], [255, 255, 255]]


def test_a_place_takes_the_nearest_panorama_within_twenty_metres(folder: Path):
    found = Panoramas(str(folder))
    assert found.near(HERE) == HERE
    assert found.near((40.75013, -73.9903)) == HERE
    assert found.near((40.75017, -73.9903)) == THERE
    assert found.near((40.7502 + 19.5 / 111_195, -73.9903)) == THERE
    assert found.near((40.7502 + 20.5 / 111_195, -73.9903)) is None
    with pytest.raises(DataError, match=r"no panorama within 20 m of 40\.760000,-73\.990000; leave the route out"):
        found.view(FAR, 0, 32)


def test_the_picture_of_a_key_is_cut_from_the_users_panorama(folder: Path):
    key = album.key("pano", THERE, 450)
    assert key == "pano:40.750200,-73.990300@90"
    picture = album.picture(key, resolution=96, folder=str(folder))
    quarters = [middle(picture[top : top + 47, left : left + 47]) for top in (0, 49) for left in (0, 49)]
    assert quarters == [[0, 255, 0], [0, 0, 255], [255, 255, 255], [255, 0, 0]]  # front, right, back, left
    with pytest.raises(DataError, match="no folder of panoramas is given; set the option panoramas"):
        album.picture(key, resolution=96)


# ---------------------------------------------------------------- files that are not what they should be
def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        Panoramas(str(folder)).view(HERE, 0, 32)
    return str(caught.value).replace(str(folder), "…")


def test_a_missing_folder_and_missing_files_are_told(folder: Path):
    with pytest.raises(DataError, match="No such file or directory; give the folder that holds the panoramas"):
        Panoramas(str(folder / "nowhere"))
    (folder / "here-1.jpg").rename(folder / "aside.jpg")
    assert refusal(folder) == f"…/here-1.jpg: missing, though the index names it; restore it or take it out of {INDEX}"
    (folder / "aside.jpg").rename(folder / "here-1.jpg")
    (folder / "here-1.metadata.json").unlink()
    assert refusal(folder) == "…/here-1.metadata.json: missing; a panorama needs its rotation from there"


@pytest.mark.parametrize("damage", ["truncated", "empty", "prose", "png"])
def test_a_damaged_picture_is_told(folder: Path, damage: str):
    path = folder / "here-1.jpg"
    whole = path.read_bytes()
    if damage == "png":
        Image.new("RGB", (40, 20)).save(path, format="PNG")
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "prose": b"no picture"}[damage])
    assert refusal(folder).startswith("…/here-1.jpg: not a readable JPEG picture (")


def test_a_picture_of_another_shape_is_no_panorama(folder: Path):
    Image.new("RGB", (300, 200)).save(folder / "here-1.jpg")
    assert refusal(folder) == "…/here-1.jpg: 300 by 200 pixels; an equirectangular panorama is twice as wide as high"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rotation": "east"}', '{"rotation": null}', '{"rotation": NaN}', "[" * 10**5]
)
def test_metadata_without_a_rotation_is_told(folder: Path, text: str):
    (folder / "here-1.metadata.json").write_text(text)
    assert refusal(folder) == "…/here-1.metadata.json: no object with a number as its 'rotation'; fetch it again"


# ---------------------------------------------------------------- the index, which is a pickle and is never loaded
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_indexes_of_every_protocol_are_read(protocol: int):
    shared = "CAoSLEFGMVFpcE"
    index = {(40.5 + n / 7e4, -73.25): shared if n % 3 else f"pano-{n}" for n in range(2500)} | {
        (40, -73): "whole-degrees"
    }
    assert read_index(pickle.dumps(index, protocol=protocol), source="index") == index
    assert read_index(pickle.dumps({}, protocol=protocol), source="index") == {}


class Harmful:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_index_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, protocol: int):
    data = pickle.dumps({HERE: Harmful(tmp_path / "touched")}, protocol=protocol)
    with pytest.raises(DataError, match=r"^index: not an index of panoramas \(it holds the instruction "):
        read_index(data, source="index")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("value", [
    [], "text", 7, {"place": "id"}, {(1.0,): "id"}, {(91.0, 0.0): "id"}, {(float("nan"), 0.0): "id"}, {("a", 0.0): "id"},
    {HERE: 7}, {HERE: ""}, {HERE: "../../secret"}, {HERE: ".hidden"}, {HERE: ("id",)}, {HERE: {HERE: "id"}},
])  # fmt: skip
def test_an_index_of_anything_else_is_refused(value: object):
    with pytest.raises(DataError, match=r"^index: not an index of panoramas"):
        read_index(pickle.dumps(value), source="index")


@given(st.binary(max_size=80))
@example(b"\x80\x04.")
@example(b"")
@example(b"}(.")
@example(b"(((((t.")
@example(pickle.dumps({HERE: "id"})[:-5])
def test_no_bytes_do_anything_but_be_refused(data: bytes):
    assert read_or_refused(data) in ({}, None)


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_index_is_read_or_refused(place: int, byte: int):
    data = bytearray(pickle.dumps({HERE: "here-1", THERE: "there_2"}))
    data[place % len(data)] = byte
    assert isinstance(read_or_refused(bytes(data)), dict | None)


def read_or_refused(data: bytes) -> dict | None:
    try:
        return read_index(data, source="index")
    except DataError:
        return None
