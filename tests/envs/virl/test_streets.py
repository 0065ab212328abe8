from itertools import product
from math import atan2, degrees, hypot, tan

import numpy as np
import pytest

from envs.base import DataError
from envs.virl import album, cities, landmarks, streets, streets_signs, views
from envs.virl.cities import City
from envs.virl.city_ground import geocode_of
from envs.virl.streets_styles import STYLES

ALL = [cities.city(name) for name in cities.NAMES]
each_city = pytest.mark.parametrize("city", ALL, ids=cities.NAMES)
SIZE = views.view_size(320)


def at(city: City, mark: landmarks.Landmark, heading: float) -> str:
    return album.key(f"{city.name}:{city.seed}", geocode_of(mark.anchor, city.origin), heading)


def towards(mark: landmarks.Landmark) -> float:
    return degrees(atan2(mark.point[0] - mark.anchor[0], mark.point[1] - mark.anchor[1])) % 360


def ground_of(city: City, mark: landmarks.Landmark) -> np.ndarray:
    colour, _, _ = landmarks.parts(mark.name)
    return np.array(streets_signs.turned(streets_signs.GROUNDS[colour], STYLES[city.name].sign.hue_turn))


def spot_of(pixels: np.ndarray, colour: np.ndarray) -> tuple[float, float, int]:
    """The middle of what has that colour in a picture, and how many pixels have."""
    rows, columns = np.nonzero(np.abs(pixels.astype(int) - colour).max(-1) <= 6)
    return (float(columns.mean()), float(rows.mean()), len(rows)) if len(rows) else (-1.0, -1.0, 0)


# ---------------------------------------------------------------- pictures
@each_city
def test_a_picture_is_the_same_whenever_it_is_drawn(city: City):
    key = at(city, city.landmarks[0], 77)
    first = album.picture(key, resolution=96)
    for kept in (streets.houses, streets_signs.board, album._scene, cities.city):
        kept.cache_clear()
    again = album.picture(key, resolution=96)
    assert first.shape == (96, 96, 3)
    assert first.dtype == np.uint8
    assert first.tobytes() == again.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 0


def test_an_album_keeps_the_latest_pictures():
    shown = album.album(96, False, None)
    key = at(ALL[0], ALL[0].landmarks[1], 10)
    assert shown(key) is shown(key)
    assert (shown(key) == album.picture(key, resolution=96)).all()
    assert 4 <= album.album(4096, False, None).cache_info().maxsize <= 8  # 50 MB each


@each_city
def test_turning_around_turns_the_views(city: City):
    key = at(city, city.landmarks[2], 40).rpartition("@")[0]
    here, turned = (album.picture(f"{key}@{heading}", resolution=320) for heading in (40, 130))
    far = 320 - SIZE
    for before, after in (  # what was right is in front, what was behind is right, what was in front is left
        (here[:SIZE, far:], turned[:SIZE, :SIZE]),
        (here[far:, :SIZE], turned[:SIZE, far:]),
        (here[:SIZE, :SIZE], turned[far:, far:]),
    ):
        assert (before != after).mean() < 0.001


def test_the_original_grid_begins_behind_at_the_left():
    key = at(ALL[0], ALL[0].landmarks[2], 90).rpartition("@")[0]
    legacy = album.picture(f"{key}@90", resolution=160, legacy_grid=True)
    assert (legacy == album.picture(f"{key}@315", resolution=160)).all()  # 90 - 135


@pytest.mark.parametrize("key", [
    "", "gridport", "gridport:0:40.72,-73.98@0", "atlantis:0:40.720000,-73.980000@0", "gridport:0:41.720000,-73.980000@0",
    "gridport:-1:40.720000,-73.980000@0", "gridport:0:40.720000,-73.980000@1e3", "pano:x@1", "x" * 5000,
])  # fmt: skip
def test_a_key_that_names_no_place_is_refused_in_one_line(key: str):
    with pytest.raises(DataError) as refused:
        album.picture(key, resolution=64)
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)


# ---------------------------------------------------------------- signs
@each_city
def test_a_sign_is_seen_where_its_landmark_stands(city: City):
    for mark in city.landmarks[:8]:
        heading = round(towards(mark)) - 20  # the sign is 20 degrees right of the middle of the first view
        picture = album.picture(at(city, mark, heading), resolution=320)
        column, row, count = spot_of(picture[:SIZE, :SIZE], ground_of(city, mark))
        expected = SIZE / 2 * (1 + tan((towards(mark) - heading) / 57.2957795))
        assert abs(column - expected) < 8
        assert 0 < row < SIZE / 2
        assert count > 250


@each_city
def test_a_sign_is_not_seen_from_elsewhere(city: City):
    for route in cities.routes(city, count=6):
        for place, landmark in ((route.start, None), *((leg.end, leg.landmark) for leg in route.legs)):
            scene = streets.scene(city, city.place(place), 30)
            assert (scene.board is None) == (landmark is None or landmark == "No landmark nearby")
            assert scene.landmark is None or landmark is None or scene.landmark.name in landmark


@each_city
def test_the_panorama_of_a_place_shows_what_its_views_show(city: City):
    for mark in city.landmarks[:2]:
        place = geocode_of(mark.anchor, city.origin)
        panorama = album.panorama(city.name, city.seed, place, 400)
        assert panorama.shape == (400, 800, 3)
        heading = round(towards(mark))
        around = [views.perspective(panorama, heading + turn, SIZE) for turn in (0, 90, 180, 270)]
        drawn = album.picture(at(city, mark, heading), resolution=320)
        assert np.abs(views.grid(around, 320).astype(int) - drawn).mean() < 6
        here, there = (spot_of(view, ground_of(city, mark)) for view in (around[0], drawn[:SIZE, :SIZE]))
        assert hypot(here[0] - there[0], here[1] - there[1]) < 1.5
        assert abs(here[2] - there[2]) < 0.15 * there[2]


def test_emblems_can_be_told_apart_at_twelve_pixels_in_every_city():
    names = list(product(range(8), range(3), range(16)))
    drawn = {}
    for city in cities.NAMES:
        hue = STYLES[city].sign.hue_turn
        small = [_emblem(name, hue).resize((16, 12), 4) for name in names]
        drawn[city] = np.stack([np.asarray(picture, float).ravel() for picture in small])
    reference = drawn[cities.TRAINED]
    for city, pictures in drawn.items():
        assert (differences(pictures, reference).argmin(1) == np.arange(len(names))).all(), city
    others = differences(reference, reference) + 1e9 * np.eye(len(names))
    assert others.min() > 15**2


def differences(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean squared differences of every picture to every other."""
    squares = (some**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * some @ others.T
    return squares / some.shape[1]


def _emblem(name: tuple[int, int, int], hue: float):
    colour, mark, trade = name
    ink = (streets_signs.WHITE, streets_signs.BLACK, streets_signs.ACCENTS[colour])[mark]
    ground, ink = (streets_signs.turned(part, hue) for part in (streets_signs.GROUNDS[colour], ink))
    return streets_signs.emblem(trade, ground, ink, (160, 120))


@each_city
def test_boards_are_as_large_as_asked_and_bear_the_name(city: City):
    mark = city.landmarks[0]
    for width in streets_signs.WIDTHS:
        board = streets_signs.board(city.name, mark.name, width)
        assert board.size == (width, round(streets_signs.TALL * width))
    letters = np.array(STYLES[city.name].sign.letters)
    assert spot_of(np.asarray(streets_signs.board(city.name, mark.name, 480))[..., :3], letters)[2] > 2000


# ---------------------------------------------------------------- streets
@each_city
def test_houses_stand_clear_of_every_roadway(city: City):
    style = STYLES[city.name]
    for piece in list(city.plan.edges)[::11]:
        for house in streets.houses(city, piece):
            place = city.place(geocode_of(house.middle, city.origin))
            off = hypot(house.middle[0] - place.point[0], house.middle[1] - place.point[1])
            assert off > style.road


@each_city
def test_styles_differ_at_a_glance(city: City):
    def look(where: City) -> np.ndarray:
        """The mean colour of eight bands of a view, from the sky to the road."""
        pictures = [album.picture(at(where, mark, 0), resolution=66)[:32, :32] for mark in where.landmarks[:5]]
        return np.mean(pictures, 0).reshape(8, -1, 3).mean(1)

    others = [look(other) for other in ALL if other is not city]
    assert min(np.abs(look(city) - other).mean() for other in others) > 12
