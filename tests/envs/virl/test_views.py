from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.virl import views

Sight = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def colours_of(east: np.ndarray, north: np.ndarray, up: np.ndarray) -> np.ndarray:
    """A world whose colour in every direction is known: the direction itself."""
    length = np.sqrt(east**2 + north**2 + up**2)
    return np.rint(127.5 + 120 * np.stack([east / length, north / length, up / length], -1)).astype(np.uint8)


def panorama_of(height: int) -> np.ndarray:
    turn = np.radians((np.arange(2 * height) + 0.5) / height * 180)
    rise = np.radians(90 - (np.arange(height) + 0.5) / height * 180)
    turn, rise = np.meshgrid(turn, rise)
    return colours_of(np.cos(rise) * np.sin(turn), np.cos(rise) * np.cos(turn), np.sin(rise))


def seen_at(heading: float, size: int) -> np.ndarray:
    """The view by its definition: the colour of the direction that every pixel looks in."""
    edge = (np.arange(size) + 0.5) / size * 2 - 1
    right, down = np.meshgrid(edge, edge)
    s, c = np.sin(np.radians(heading)), np.cos(np.radians(heading))
    return colours_of(s + right * c, c - right * s, -down)


@given(st.floats(-720, 720), st.integers(8, 40))
@settings(max_examples=25, deadline=None)
def test_a_view_shows_the_directions_it_looks_in(heading: float, size: int):
    view = views.perspective(panorama_of(256), heading, size)
    assert view.shape == (size, size, 3)
    assert np.abs(view.astype(int) - seen_at(heading, size)).max() <= 3


def test_a_view_across_the_edge_of_the_panorama_has_no_seam():
    panorama = panorama_of(128)
    for heading in (0, 359.9, 0.1):
        assert np.abs(np.diff(views.perspective(panorama, heading, 64).astype(int), axis=1)).max() <= 6


def test_six_views_make_the_panorama_of_all_directions():
    size = 128
    edge = (np.arange(size) + 0.5) / size * 2 - 1
    right, down = np.meshgrid(edge, edge)
    faces = {name: seen_at(turn, size) for name, turn in (("front", 0), ("right", 90), ("back", 180), ("left", 270))}
    faces["up"] = colours_of(right, down, np.ones_like(right))  # its lower edge is the front's upper edge
    faces["down"] = colours_of(right, -down, -np.ones_like(right))
    made = views.panorama(faces, 96)
    assert made.shape == (96, 192, 3)
    assert np.abs(made.astype(int) - panorama_of(96)).max() <= 3


def test_four_views_stand_in_the_order_of_the_prompt():
    size = views.view_size(320)
    front, right, back, left = (np.full((size, size, 3), 50 * n, np.uint8) for n in range(1, 5))
    picture = views.grid([front, right, back, left], 320)
    corners = picture[[0, 0, -1, -1], [0, -1, 0, -1], 0].tolist()
    assert corners == [50, 100, 150, 200]


@pytest.mark.parametrize(
    ("resolution", "size", "gutter"), [(2405, 1200, 5), (320, 159, 2), (1200, 599, 2), (97, 48, 1), (64, 31, 2)]
)
def test_the_gutter_keeps_the_proportions_of_the_original(resolution: int, size: int, gutter: int):
    white = np.full((size, size, 3), 255, np.uint8)
    assert views.view_size(resolution) == size
    picture = views.grid([white] * 4, resolution)
    assert picture.shape == (resolution, resolution, 3)
    assert (picture[0] == 0).all(1).sum() == (picture[:, 0] == 0).all(1).sum() == gutter
