import json
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.base import ConfigError, DataError
from envs.virl import prompts, rail_lines
from envs.virl.rail import Position, Ways, instructions_of, rail_of, relative_word
from envs.virl.routes import COMPASS, Geocode, Leg, Route, compass_word, write_routes

DEGREE = 111_195  # metres of latitude
CAFE, BANK = "Red Raven Cafe is on your right front", "The destination Blue Swan Bank is on your left"


def leg(heading: int, metres: float, landmark: str, end: Geocode) -> Leg:
    return Leg(heading=heading, distance_m=metres, landmark=landmark, end=end)


ROUTE = Route(
    id="a", start=(40.72, -73.99), init_heading=350, destination="Blue Swan Bank",
    legs=(
        leg(10, 90, CAFE, (40.7208, -73.99)),
        leg(280, 60, prompts.NO_LANDMARK, (40.7208, -73.9907)),
        leg(190, 80, BANK, (40.72, -73.9907)),
    ),
)  # fmt: skip

headings = st.integers(0, 359)
legs = st.builds(
    Leg, heading=headings, distance_m=st.sampled_from([3.0, 5.0, 5.1, 80.0]),
    landmark=st.sampled_from([CAFE, prompts.NO_LANDMARK]), end=st.tuples(st.floats(40.7, 40.8), st.floats(-74, -73.9)),
)  # fmt: skip
routes = st.builds(
    Route, id=st.just("r"), start=st.just(ROUTE.start), init_heading=headings, destination=st.just("Blue Swan Bank"),
    legs=st.lists(legs, min_size=1, max_size=4).map(tuple),
)  # fmt: skip
ways = st.builds(
    Ways, actions=st.sampled_from(["absolute", "relative"]), straight_line_length=st.integers(0, 5),
    legacy_headings=st.booleans(), legacy_legs=st.booleans(),
)  # fmt: skip


# ---------------------------------------------------------------- slow definitions
def slow_word(before: float, after: float, *, legacy: bool) -> str:
    """By the direction that one turns to, as an arrow; the original's by plain subtraction."""
    right, ahead = math.sin(math.radians(after - before)), math.cos(math.radians(after - before))
    turned = after - before if legacy else round(math.degrees(math.atan2(right, ahead)), 6)
    if -45 <= turned <= 0:
        return "slightly left"
    if 0 < turned <= 45:
        return "slightly right"
    turns_back = turned == -180 and not legacy  # to the right, wherever one looks
    return "left" if turned < 0 and not turns_back else "right"


def slow_rail(route: Route, w: Ways) -> list[tuple[str, str, str, int, int]]:
    """(action, observation, intersection, instruction_idx, heading) of each position, without drops, leg by leg."""
    before = [route.init_heading, *(leg.heading for leg in route.legs)]
    found, late = [], 0
    for i, leg in enumerate(route.legs):
        absolute = COMPASS[round(leg.heading / 45 + 1e-9) % 8]
        word = absolute if w.actions == "absolute" else slow_word(before[i], leg.heading, legacy=w.legacy_headings)
        arrived = route.legs[i - 1].landmark if i else "No landmarks nearby"
        found.append(
            (f"turn_direction({word})", arrived, "You observe an intersection" if i else "", 2 * i - late, before[i])
        )
        if leg.distance_m > 5:
            found += [("forward()", "No landmarks nearby", "", 2 * i + 1 - late, leg.heading)] * w.straight_line_length
        elif w.legacy_legs:
            late += 1
    found.append(("stop()", route.legs[-1].landmark, "", 2 * len(route.legs) - 1 - late, route.legs[-1].heading))
    return found


def facts(rail: tuple[Position, ...]) -> list[tuple[str, str, str, int, int]]:
    return [(p.action, p.observation, p.intersection, p.instruction_idx, p.heading) for p in rail]


# ---------------------------------------------------------------- the rail
@given(routes, ways)
def test_a_rail_is_what_the_slow_definition_says(route: Route, w: Ways):
    rail = rail_of(route, w)
    assert facts(rail) == slow_rail(route, w)
    lines = instructions_of(route, legacy_headings=w.legacy_headings)
    assert all(p.instruction == lines[p.instruction_idx] for p in rail)


def test_a_route_is_walked_from_its_start_by_turns_and_steps_to_its_destination():
    rail = rail_of(ROUTE, Ways(straight_line_length=1))
    assert [p.action for p in rail] == [
        "turn_direction(north)", "forward()", "turn_direction(west)", "forward()", "turn_direction(south)", "forward()", "stop()",
    ]  # fmt: skip
    assert [p.observation for p in rail] == [
        "No landmarks nearby", "No landmarks nearby", CAFE, "No landmarks nearby", "No landmark nearby", "No landmarks nearby",
        BANK,
    ]  # fmt: skip
    assert [bool(p.intersection) for p in rail] == [False, False, True, False, True, False, False]
    assert [p.heading for p in rail] == [350, 10, 10, 280, 280, 190, 190]
    assert rail[1].geocode == pytest.approx((40.7204, -73.99), abs=1e-9)
    assert [rail[0].geocode, rail[2].geocode, rail[6].geocode] == [ROUTE.start, ROUTE.legs[0].end, ROUTE.legs[2].end]


def test_both_action_spaces_are_told_the_same_lines():
    lines = instructions_of(ROUTE, legacy_headings=False)
    assert lines == (
        "First, turn slightly right to face north.",
        f"Move forward until you reach next intersection where {CAFE}.",
        "Turn left to face west.",
        "Move forward until you reach next intersection.",
        "Turn left to face south.",
        f"Move forward until you reach destination where {BANK}.",
    )
    told = [[p.instruction for p in rail_of(ROUTE, Ways(actions=space))] for space in ("absolute", "relative")]
    assert told[0] == told[1]
    assert [p.action for p in rail_of(ROUTE, Ways(actions="relative", straight_line_length=0))] == [
        "turn_direction(slightly right)", "turn_direction(left)", "turn_direction(left)", "stop()",
    ]  # fmt: skip


# ---------------------------------------------------------------- headings
@given(st.integers(0, 359), st.integers(0, 359))
def test_relative_words_are_those_of_the_slow_definition(before: int, after: int):
    for legacy in (False, True):
        assert relative_word(before, after, legacy=legacy) == slow_word(before, after, legacy=legacy)


@given(headings, headings, headings)
def test_relative_words_do_not_depend_on_where_north_is(before: int, after: int, turn: int):
    assert relative_word(before, after) == relative_word((before + turn) % 360, (after + turn) % 360)


@pytest.mark.parametrize(
    ("turned", "word"),
    [(-179, "left"), (-46, "left"), (-45, "slightly left"), (0, "slightly left"), (1, "slightly right"),
     (45, "slightly right"), (46, "right"), (180, "right")],
)  # fmt: skip
def test_the_bounds_of_the_words_are_those_of_the_original(turned: int, word: str):
    for before in (180, 0, 350):
        assert relative_word(before, (before + turned) % 360) == word
    assert relative_word(180, 180 + turned, legacy=True) == word


def test_the_originals_words_are_wrong_for_a_quarter_of_all_turns():
    pairs = [(a, b) for a in range(0, 360, 3) for b in range(0, 360, 3)]
    wrong = sum(relative_word(a, b) != relative_word(a, b, legacy=True) for a, b in pairs) / len(pairs)
    assert abs(wrong - 0.25) < 0.01
    right_angles = [(a, (a + turn) % 360) for a in (0, 90, 180, 270) for turn in (90, 270)]
    assert sum(relative_word(a, b) != relative_word(a, b, legacy=True) for a, b in right_angles) == 2
    legacy = rail_of(ROUTE, Ways(actions="relative", straight_line_length=0, legacy_headings=True))
    assert [p.action for p in legacy[:2]] == ["turn_direction(left)", "turn_direction(right)"]
    assert legacy[0].instruction == "First, turn left to face north."


# ---------------------------------------------------------------- steps
def test_short_legs_shift_the_instructions_behind_them_only_in_legacy():
    short = replace(ROUTE, legs=(replace(ROUTE.legs[0], distance_m=5.0), *ROUTE.legs[1:]))
    told = {
        legacy: [p.instruction_idx for p in rail_of(short, Ways(straight_line_length=1, legacy_legs=legacy))]
        for legacy in (False, True)
    }
    assert told == {False: [0, 2, 3, 4, 5, 5], True: [0, 1, 2, 3, 4, 4]}


def test_steps_are_dropped_at_the_rate_that_is_asked_for():
    for rate in (0.0, 0.3, 0.5, 0.9):
        kept = Counter(
            p.action for n in range(300) for p in rail_of(ROUTE, Ways(straight_line_length=5, drop_rate=rate), n)
        )
        assert kept["forward()"] / (300 * 15) == pytest.approx(1 - rate, abs=0.04)
        assert kept["stop()"] == 300


def test_which_steps_are_dropped_depends_on_the_counters_alone():
    w = Ways(straight_line_length=5, drop_rate=0.5)
    rails = [rail_of(ROUTE, w, 7, n) for n in range(20)]
    assert rails == [rail_of(ROUTE, w, 7, n) for n in range(20)]
    assert len(set(rails)) == 20
    steps = [tuple(p.geocode for p in rail_of(ROUTE, Ways(straight_line_length=5))) for _ in range(2)]
    assert all({p.geocode for p in rail} <= set(steps[0]) for rail in rails)


def test_a_rail_that_loses_all_steps_still_turns_and_stops():
    rail = rail_of(ROUTE, Ways(straight_line_length=1, drop_rate=1 - 1e-12))
    assert [p.instruction_idx for p in rail] == [0, 2, 4, 5]


# ---------------------------------------------------------------- steps that are moved to panoramas
def metres_of_latitude(a: Geocode, b: Geocode) -> float:
    return abs(a[0] - b[0]) * DEGREE


def test_moved_steps_stand_where_pictures_are_each_once_and_clear_of_the_ends():
    places = [(40.72 + metres / DEGREE, -73.99) for metres in (0, 7.5, 8.5, 40, 79, 82, 89)]

    def snap(geocode: Geocode) -> Geocode | None:
        near = min(places, key=lambda place: metres_of_latitude(place, geocode))
        return near if metres_of_latitude(near, geocode) < 20 else None

    route = replace(ROUTE, legs=(leg(0, 89, BANK, (40.72 + 89 / DEGREE, -73.99)),))
    w = Ways(straight_line_length=20)
    moved = [p.geocode for p in rail_of(route, w, snap=snap) if p.action == "forward()"]
    assert moved == [places[2], places[3], places[4]]  # 7.5 and 82 m are too near to an end
    doubled = [p.geocode for p in rail_of(route, replace(w, legacy_legs=True), snap=snap) if p.action == "forward()"]
    assert list(dict.fromkeys(doubled)) == moved
    assert len(doubled) > len(moved)


def test_steps_without_a_panorama_are_left_out():
    rail = rail_of(ROUTE, Ways(straight_line_length=5), snap=lambda _: None)
    assert [p.action for p in rail].count("forward()") == 0
    assert len(rail) == 4


# ---------------------------------------------------------------- as lines
@given(routes, ways)
def test_positions_follow_each_other_by_one_line_or_two(route: Route, w: Ways):
    told = [p.instruction_idx for p in rail_of(route, w)]
    assert all(0 <= after - before <= 2 for before, after in pairwise(told))


def lines_of(path: Path, number: int = 0, **options: Any) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(line)) for line in rail_lines.of_file(path, number, options)]


def test_lines_hold_the_rail_of_one_route_of_a_file(tmp_path: Path):
    path = write_routes(tmp_path / "routes.json", [replace(ROUTE, legs=ROUTE.legs[:1]), ROUTE])
    lines = lines_of(path, 1, straight_line_length=1)
    keys = ["action", "observation", "intersection", "instruction", "instruction_idx", "heading", "geocode"]
    assert all(list(line) == keys for line in lines)
    assert [line["heading"] for line in lines] == [350, 10, 10, 280, 280, 190, 190]
    assert lines[2]["geocode"] == [40.7208, -73.99]
    assert lines[2]["intersection"] == "You observe an intersection"
    assert len(lines_of(path, 0, straight_line_length=0)) == 2
    assert lines_of(path, 1, drop_rate=0.5) == lines_of(path, 1, drop_rate=0.5)


def test_lines_of_what_is_not_there_are_refused(tmp_path: Path):
    path = write_routes(tmp_path / "routes.json", [ROUTE])
    with pytest.raises(ConfigError, match=r"^--route 1: .*routes\.json holds 1 route, numbered 0"):
        lines_of(path, 1)
    with pytest.raises(ConfigError, match=r"^viter rail: actions: 'up'"):
        lines_of(path, actions="up")
    with pytest.raises(DataError, match="No such file"):
        lines_of(tmp_path / "none.json")


def test_compass_words_of_a_rail_are_those_of_its_legs():
    rail = rail_of(ROUTE, Ways(straight_line_length=0))
    assert [p.action for p in rail[:-1]] == [f"turn_direction({compass_word(leg.heading)})" for leg in ROUTE.legs]
