import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.base import DataError
from envs.virl import milestones
from envs.virl.routes import COMPASS, Leg, Route, compass_word, read_routes, write_routes

ROUTE = Route(
    id="broadway", start=(40.72, -73.99), init_heading=90, destination="Blue Swan Bank",
    legs=(
        Leg(heading=177, distance_m=75.0, landmark="Red Raven Cafe is on your right front", end=(40.7193, -73.99)),
        Leg(heading=268, distance_m=120.5, landmark="No landmark nearby", end=(40.7193, -73.9914)),
        Leg(heading=0, distance_m=3.0, landmark="The destination Blue Swan Bank is on your left", end=(40.72, -73.9914)),
    ),
)  # fmt: skip

# As the original's collector writes them: a field a line, nothing escaped.
BLOCKS = """{
"intersection_idx": 0,
"landmarks": "Red Raven Cafe is on your right front",
"distance": "75 meters",
"human_heading": "90 (east)",
"to_next_intersection_heading": "177 (south)"
}
{
"intersection_idx": 1,
"landmarks": No landmark nearby,
"distance": 120 meters,
"human_heading": 177 (south),
"to_next_intersection_heading": 268 (west)
}
{
"intersection_idx": 2,
"landmarks": "The destination Blue Swan Bank is on your left",
"distance": "3 meters",
"human_heading": "268 (west)",
"to_next_intersection_heading": "0 (north)"
}"""


def original() -> dict[str, Any]:
    """A route as the original's file holds it."""
    place = {"geocode": [40.72, -73.99], "relocated_geocode": [40.72001, -73.99001], "pano_id": "x"}
    ends = [list(leg.end) for leg in ROUTE.legs]
    return {
        "start_place": place,
        "dest_place": {**place, "name": "Blue Swan Bank", "geocode": ends[-1], "place_id": "y"},
        "route_results": {"geocode_list": ends, "landmark_list": [{"name": "Red Raven Cafe"}, None, None], "polyline": "_p~iF",
                          "distance_list": [75.0, 120.5, 3.0]},
        "init_heading": 90,
        "instruction": "Walk south along Broadway …",
        "milestone_info": BLOCKS,
    }  # fmt: skip


def saved(path: Path, routes: Any, k: Any = 7) -> Path:
    path.write_text(json.dumps([routes, k]))
    return path


def changed(dotted: str, value: Any) -> dict[str, Any]:
    """The original's route with one field changed, or left out where the value is `...`."""
    route = copy.deepcopy(original())
    *parents, last = dotted.split(".")
    place: Any = route
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return route


# ---------------------------------------------------------------- what is read and written
def test_a_file_of_the_original_is_read_as_it_is(tmp_path: Path):
    (route,) = read_routes(saved(tmp_path / "routes.json", [original()]))
    assert route == Route(
        id="route-0", start=ROUTE.start, init_heading=90, destination=ROUTE.destination, legs=ROUTE.legs
    )


def test_distances_are_those_of_the_blocks_where_the_list_has_none(tmp_path: Path):
    for distances in (..., [75.0], ["75 m", "120 m", "3 m"], None):
        row = changed("route_results.distance_list", distances)
        (route,) = read_routes(saved(tmp_path / "routes.json", [row]))
        assert [leg.distance_m for leg in route.legs] == [75, 120, 3]


def test_a_written_file_holds_what_the_original_names(tmp_path: Path):
    [row], k = json.loads(write_routes(tmp_path / "routes.json", [ROUTE], k=3).read_text())
    assert k == 3
    assert row["dest_place"]["name"] == "Blue Swan Bank"
    assert row["start_place"]["relocated_geocode"] == row["start_place"]["geocode"] == [40.72, -73.99]
    assert row["route_results"]["landmark_list"][1] is None
    blocks = row["milestone_info"].split("}")  # as the original reads them
    fields = dict(line.split(":", 1) for line in blocks[0].splitlines() if ":" in line)
    assert fields['"distance"'].strip(' ",') == "75 meters"
    assert fields['"to_next_intersection_heading"'].strip(' ",') == "177 (south)"
    assert fields['"human_heading"'].strip(' ",') == "90 (east)"


geocodes = st.tuples(st.floats(-90, 90), st.floats(-180, 180))
texts = st.text(min_size=1).filter(str.strip)
awkward = st.text(alphabet="{}\":,\\\n'aé ", min_size=1).filter(str.strip)
legs = st.builds(Leg, heading=st.integers(0, 359), distance_m=st.floats(0, 1e6), landmark=texts | awkward, end=geocodes)
routes = st.builds(
    Route, id=texts, start=geocodes, init_heading=st.integers(0, 359), destination=texts | awkward,
    legs=st.lists(legs, min_size=1, max_size=4).map(tuple),
)  # fmt: skip


@given(st.lists(routes, min_size=1, max_size=3), st.integers())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_what_was_written_reads_back_exactly(tmp_path: Path, routes: list[Route], k: int):
    assert read_routes(write_routes(tmp_path / "routes.json", routes, k=k)) == tuple(routes)


def test_a_compass_word_is_the_nearest_of_eight():
    for heading in (*range(360), 22.49, 22.51, 337.49, 337.51):
        distances = {word: abs((heading - 45 * n + 180) % 360 - 180) for n, word in enumerate(COMPASS)}
        assert distances[compass_word(heading)] == min(distances.values())


# ---------------------------------------------------------------- names that hold anything
@pytest.mark.parametrize(
    "name",
    [
        "Braces } and { {x}", 'Joe\'s "Best" Pizza', "A: B: C", "Ends in a brace }", "Ends in a comma,", 'Ends in a quote "',
        "Über Straße 北京 🍕", "back\\slash", '"distance": "9 meters"', "}, {", "'", '"',
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_quoted", [True, False])
def test_unescaped_names_survive_in_the_originals_text(name: str, is_quoted: bool, tmp_path: Path):
    seen = f"{name} is on your right front"
    blocks = BLOCKS.replace('"Red Raven Cafe is on your right front"', f'"{seen}"' if is_quoted else seen)
    (route,) = read_routes(saved(tmp_path / "routes.json", [changed("milestone_info", blocks)]))
    assert route.legs == (
        Leg(heading=177, distance_m=75.0, landmark=seen, end=ROUTE.legs[0].end), *ROUTE.legs[1:],
    )  # fmt: skip


def test_a_quoted_name_may_run_over_lines():
    for name in ("two\nlines", 'two "quoted\nlines"', "a {\n}\n brace"):
        block = f'{{\n"landmarks": "{name}",\n"distance": "5 meters"\n}}\n'
        assert milestones.read(block * 2) == [{"landmarks": name, "distance": "5 meters"}] * 2


def test_blocks_may_be_json_single_quoted_or_share_lines_with_their_braces():
    expected = [{"landmarks": "It's left", "distance": "5 meters"}, {"distance": "6 meters"}]
    for text in (
        '{"landmarks": "It\'s left", "distance": "5 meters"}, {"distance": "6 meters"}',
        '{"landmarks": "It\'s left",\n"distance": "5 meters",},\n{"distance": "6 meters",}',
        "{\n'landmarks': 'It's left',\n'distance': '5 meters'\n},{\n'distance': '6 meters'}",
        "{landmarks: It's left\ndistance: 5 meters\n}\n{\ndistance: 6 meters\n}",
    ):
        assert milestones.read(text) == expected


@given(st.text(alphabet="{}\":,\\\n' ad", max_size=60) | st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_reads_as_blocks(text: str):
    assert all(isinstance(block, dict) for block in milestones.read(text))
    assert all(isinstance(block, dict) for block in milestones.read(f'{{\n"landmarks": {text}\n"distance": {text}'))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["landmarks", "distance", "x"]), st.text()), max_size=4))
def test_written_blocks_read_back_exactly(blocks: list[dict[str, str]]):
    assert milestones.read(milestones.write(blocks)) == blocks


@pytest.mark.parametrize("unit", [" ", "{", '"', "\n", "{\n", '"a":', "distance:", 'distance: "', "'", "{ \t", "\\"])
def test_long_texts_are_read_in_time(unit: str):
    milestones.read(unit * (1_000_000 // len(unit)))  # a quadratic reader takes minutes


# ---------------------------------------------------------------- what cannot be read
@pytest.mark.parametrize(
    ("dotted", "value", "problem"),
    [
        ("init_heading", "north", "init_heading is 'north'; it must be a number, or text that begins with one"),
        ("init_heading", ..., "init_heading is missing; it must be"),
        ("init_heading", True, "init_heading is True"),
        ("init_heading", math.nan, "init_heading is nan"),
        ("start_place", ..., "start_place is missing; it must be an object"),
        ("start_place.geocode", [91, 0], r"start_place.geocode is \[91, 0\]; it must be \[latitude, longitude\] in degrees"),
        ("start_place.geocode", ["40", "7"], "start_place.geocode is "),
        ("start_place.geocode", [40.7], "start_place.geocode is "),
        ("dest_place.name", "", "dest_place.name is ''; it must be text"),
        ("dest_place.name", 7, "dest_place.name is 7"),
        ("dest_place.name", "x\ud800", r"dest_place.name is 'x\\ud800'; it must be text, of whole characters"),
        ("id", " ", "id is ' '; it must be text"),
        ("route_results", [], r"route_results is \[\]; it must be an object"),
        ("route_results.geocode_list", "x", "route_results.geocode_list is 'x'; it must be a list"),
        ("route_results.geocode_list", [[0, 0]], "milestone_info holds 3 blocks and route_results.geocode_list 1 geocodes"),
        ("route_results.geocode_list", [[0, 0], [0, 0], None], r"route_results.geocode_list\[2\] is missing"),
        ("milestone_info", None, "milestone_info is missing; it must be text with one block in braces for each leg"),
        ("milestone_info", "prose", "milestone_info holds 0 blocks"),
        ("milestone_info", "{}" * 3, r"milestone_info\[0\].to_next_intersection_heading is missing"),
        ("milestone_info", BLOCKS.replace('"177 (south)"', "south"),
         r"milestone_info\[0\].to_next_intersection_heading is 'south'"),
        ("milestone_info", BLOCKS.replace('"The destination Blue Swan Bank is on your left"', '""'),
         r"milestone_info\[2\].landmarks is ''; it must be text"),
        ("route_results.distance_list", [-1, 2, 3], r"milestone_info\[0\].distance is -1.0; it must be metres from 0 to 1,000,000"),
    ],
)  # fmt: skip
def test_a_malformed_route_is_told_its_number_field_and_value(dotted: str, value: Any, problem: str, tmp_path: Path):
    path = saved(tmp_path / "routes.json", [original(), changed(dotted, value), original()])
    with pytest.raises(DataError, match=rf"routes\.json: route 1: {problem}") as error:
        read_routes(path)
    assert "\n" not in str(error.value)


def test_a_route_that_is_no_object_is_told_so(tmp_path: Path):
    for row in (None, 7, "x", []):
        with pytest.raises(DataError, match=r"routes\.json: route 1: the route is .*; it must be an object"):
            read_routes(saved(tmp_path / "routes.json", [original(), row]))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00\xd8", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b"{}", r"\{\}; a route file is a list of two, the routes and a number"),
        (b"null", "None; a route file is a list of two"),
        (b"[[]]", "a list of 1; a route file is a list of two"),
        (b"[[], [], 3]", "a list of 3; a route file"),
        (b"[3, []]", r"\[3, \[\]\]; a route file is a list of two"),
        (b"[[], 0]", "holds no routes"),
    ],
)
def test_a_file_that_is_none_is_told_so(content: bytes, problem: str, tmp_path: Path):
    (tmp_path / "routes.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"routes\.json: {problem}") as error:
        read_routes(tmp_path / "routes.json")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_a_missing_file_a_folder_and_an_unwritable_place_are_told_so(tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.json: No such file"):
        read_routes(tmp_path / "none.json")
    with pytest.raises(DataError, match="Is a directory"):
        read_routes(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        write_routes(tmp_path / "none" / "routes.json", [ROUTE])
    with pytest.raises(DataError, match=r"routes\.json: .*surrogates not allowed"):
        write_routes(tmp_path / "routes.json", [replace(ROUTE, destination="\udfff")])


SCRAPS = st.sampled_from([None, True, 7, -1.5, "", "x", "9" * 50, [], [1, 2], {}, {"geocode": []}, 10**30, [[[]]] * 9])
PLACES = [
    "id", "init_heading", "milestone_info", "start_place", "start_place.geocode", "dest_place", "dest_place.name",
    "route_results", "route_results.geocode_list", "route_results.distance_list",
]  # fmt: skip


def told(path: Path) -> str | None:
    """What is told of a file that cannot be read; None of one that can."""
    try:
        read_routes(path)
    except DataError as error:
        return str(error)
    return None


@given(st.sampled_from(PLACES), SCRAPS | st.recursive(st.none() | st.text(), st.lists, max_leaves=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_any_json_in_any_field_reads_or_is_refused(tmp_path: Path, dotted: str, value: Any):
    problem = told(saved(tmp_path / "routes.json", [changed(dotted, value)]))
    assert problem is None or ("route 0: " in problem and "\n" not in problem)


@given(st.binary(max_size=40), st.integers(0, 2000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_any_bytes_read_or_are_refused(tmp_path: Path, junk: bytes, place: int):
    path = saved(tmp_path / "routes.json", [original()])
    whole = path.read_bytes()
    for content in (junk, whole[:place] + junk + whole[place + len(junk) :], whole[:place]):
        path.write_bytes(content)
        problem = told(path)
        assert problem is None or (problem.startswith(str(path)) and "\n" not in problem)


def test_values_nested_as_deep_as_json_allows_are_refused(tmp_path: Path):
    nested: Any = []
    for _ in range(800):
        nested = [nested]
    with pytest.raises(DataError, match="start_place is "):
        read_routes(saved(tmp_path / "routes.json", [changed("start_place", nested)]))
