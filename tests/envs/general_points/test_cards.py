import hashlib
import subprocess
import sys
from functools import cache
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.base import DataError
from envs.general_points import cards, faces
from envs.general_points.hands import RANKS

DECK = [suit + rank for suit, rank in product("SHDC", RANKS)]
TABLE = np.array(cards.TABLE)


def drawn(key: str, *, deck: str = "standard", scene: str = "plain", resolution: int = 128) -> np.ndarray:
    return cards.picture(key, deck=deck, scene=scene, resolution=resolution)


def places(picture: np.ndarray) -> list[np.ndarray]:
    """The four cards as they are cut out of a picture."""
    side = len(picture)
    width = cards.card_width(side)
    top = (side - width * 7 // 5) // 2
    return [picture[top : top + width * 7 // 5, left : left + width] for left in cards.left_edges(side)]


def hands_of(ranks: list[str]) -> list[str]:
    """Keys of as many hands as hold each card once, four by four."""
    return ["-".join(ranks[start : start + 4]) for start in range(0, len(ranks), 4)]


def sha(picture: np.ndarray) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()


def test_at_1200_pixels_cards_lie_where_the_original_lays_them():
    picture = drawn("CK-S7-HT-DA", resolution=1200)
    assert (picture.shape, picture.dtype) == ((1200, 1200, 3), np.uint8)
    covered = (picture != TABLE).any(axis=2)
    assert np.flatnonzero(covered.any(axis=1))[[0, -1]].tolist() == [411, 411 + 378 - 1]
    edges = np.flatnonzero(np.diff(covered[600].astype(int))) + 1
    assert edges.tolist() == [edge for left in (5, 302, 599, 896) for edge in (left, left + 270)]


@pytest.mark.parametrize(
    ("resolution", "width", "edges"),
    [
        (2400, 540, [5, 599, 1193, 1787]),
        (1200, 270, [5, 302, 599, 896]),
        (320, 72, [1, 80, 159, 238]),
        (128, 28, [1, 31, 62, 93]),
        (64, 14, [1, 16, 31, 47]),
    ],
)
def test_other_sizes_keep_the_proportions(resolution: int, width: int, edges: list[int]):
    assert (cards.card_width(resolution), cards.left_edges(resolution)) == (width, edges)
    assert edges[3] + width <= resolution


@pytest.mark.parametrize("deck", ["standard", "serif", "four_colour"])
@pytest.mark.parametrize("resolution", [64, 128, 320])
def test_all_cards_of_a_deck_differ(deck: str, resolution: int):
    width = cards.card_width(resolution)
    pictures = {card: np.asarray(faces.face(card[0], card[1], deck, width)).astype(int) for card in DECK}
    for first, second in zip(DECK, [*DECK[1:], DECK[0]], strict=True):
        assert np.abs(pictures[first] - pictures[second]).mean() > 1
    assert len({picture.tobytes() for picture in pictures.values()}) == 52


@pytest.mark.parametrize("resolution", [96, 320])
def test_the_ink_is_that_of_the_suit(resolution: int):
    def ink(suit: str, deck: str) -> np.ndarray:
        """The mean of all pixels that are far from paper."""
        pixels = np.asarray(faces.face(suit, "7", deck, cards.card_width(resolution)))[..., :3].reshape(-1, 3)
        return pixels[pixels.min(axis=1) < 100].mean(axis=0)

    for suit, deck in product("SC", ("standard", "serif")):
        assert ink(suit, deck).max() < 80
    for suit, deck in product("HD", ("standard", "serif")):
        red, green, blue = ink(suit, deck)
        assert red > 150 > 90 > max(green, blue)
    strongest = [int(ink(suit, "four_colour").argmax()) for suit in "HCD"]
    assert strongest == [0, 1, 2]  # red hearts, green clubs, blue diamonds
    assert ink("S", "four_colour").max() < 80


def test_a_picture_is_a_function_of_its_arguments():
    key = "CK-S7-HT-DA"
    for deck, scene in product(("standard", "serif", "four_colour"), ("plain", "rotated", "noisy")):
        first = sha(drawn(key, deck=deck, scene=scene))
        faces.face.cache_clear()
        assert sha(drawn(key, deck=deck, scene=scene)) == first
    looks = [*product(("standard", "serif"), ("plain", "rotated", "noisy"), (96, 128))]
    assert len({sha(drawn(key, deck=d, scene=s, resolution=r)) for d, s, r in looks}) == len(looks)


def test_another_process_draws_the_same_bytes():
    code = (
        "import hashlib; from envs.general_points import cards\n"
        "for scene in ('plain', 'rotated', 'noisy'):\n"
        "    p = cards.picture('CK-S7-HT-DA', deck='standard', scene=scene, resolution=128)\n"
        "    print(hashlib.sha256(p.tobytes()).hexdigest())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [sha(drawn("CK-S7-HT-DA", scene=scene)) for scene in ("plain", "rotated", "noisy")]


def test_turns_and_noise_are_those_of_the_hand():
    """The same cards elsewhere on the table lie and shine in another way."""
    for scene in ("rotated", "noisy"):
        first, second = (places(drawn(key, scene=scene))[0].astype(int) for key in ("CK-S7-HT-DA", "CK-S7-HT-DK"))
        assert np.abs(first - second).mean() > 2
    straight = places(drawn("CK-S7-HT-DA"))[0]
    assert (straight == places(drawn("CK-S7-HT-DK"))[0]).all()


@cache
def templates() -> dict[str, np.ndarray]:
    pictures = (drawn(key) for key in hands_of(DECK))
    return dict(zip(DECK, [place.astype(float) for picture in pictures for place in places(picture)], strict=True))


def nearest(place: np.ndarray) -> str:
    """The card of the clean deck that is most alike, at the best shift of up to two pixels; any light serves."""
    inner = place[2:-2, 2:-2].astype(float)

    def likeness(template: np.ndarray) -> float:
        height, width = inner.shape[:2]
        return max(
            float(np.corrcoef(inner.ravel(), template[y : y + height, x : x + width].ravel())[0, 1])
            for y in range(5)
            for x in range(5)
        )

    return max(templates(), key=lambda card: likeness(templates()[card]))


@pytest.mark.parametrize(
    ("deck", "scene", "least"), [("standard", "rotated", 23), ("standard", "noisy", 23), ("serif", "plain", 20)]
)
def test_small_cards_are_told_apart_by_the_nearest_clean_card(deck: str, scene: str, least: int):
    shuffled = Random(0).sample(DECK, 52)[:24]
    found = [nearest(place) for key in hands_of(shuffled) for place in places(drawn(key, deck=deck, scene=scene))]
    ranks = sum(guess[1] == card[1] for guess, card in zip(found, shuffled, strict=True))
    assert ranks >= least


@pytest.mark.parametrize(
    "key",
    ["", "CK", "CK-C7-HT", "CK-C7-HT-CA-C2", "CK-C7-HT-C1", "KC-C7-HT-CA", "CK_C7_HT_CA", "CK-C7-HT-CA\n", "x" * 999],
)
def test_a_key_that_names_no_hand_is_told_so(key: str):
    with pytest.raises(DataError, match=r"^image .*: no hand; four cards are written like 'CK-C7-HT-CA'$") as error:
        drawn(key)
    assert len(str(error.value)) < 120


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from(DECK), min_size=4, max_size=4), st.integers(64, 400), st.sampled_from(["plain", "noisy"])
)
def test_any_hand_is_drawn_at_any_size(hand: list[str], resolution: int, scene: str):
    picture = drawn("-".join(hand), scene=scene, resolution=resolution)
    assert (picture.shape, picture.dtype) == ((resolution, resolution, 3), np.uint8)
    if scene == "plain":
        assert (picture[0] == TABLE).all()
        assert all(place.mean() > 150 for place in places(picture))  # mostly paper


def test_pictures_are_read_only_kept_and_bounded():
    album = cards.album("standard", "plain", 1200)
    keys = [f"CK-C7-HT-C{rank}" for rank in RANKS] + [f"CK-C7-HT-S{rank}" for rank in RANKS]
    picture = album(keys[0])
    with pytest.raises(ValueError, match="read-only"):
        picture[0, 0, 0] = 0
    assert album(keys[0]) is picture
    for key in keys:
        album(key)
    assert album.cache_info().currsize == album.cache_info().maxsize == 15
    assert album.cache_info().maxsize * picture.nbytes <= 64 * 2**20
    album.cache_clear()


def test_the_font_of_another_deck_may_be_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faces, "find_spec", lambda name: None)
    faces._font.cache_clear()
    faces._letters.cache_clear()
    faces.face.cache_clear()
    with pytest.raises(DataError, match="deck 'serif' uses a font of matplotlib, which is not installed"):
        drawn("CK-C7-HT-CA", deck="serif")
    faces._font.cache_clear()
