from itertools import pairwise
from math import asin, atan2, cos, degrees, log, radians, sin, sqrt

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.base import ConfigError, DataError
from envs.virl import cities, landmarks, prompts
from envs.virl.cities import City
from envs.virl.city_ground import geocode_of, metres, point_of
from envs.virl.city_plans import chains
from envs.virl.city_runs import runs_of
from envs.virl.routes import Leg, Route, read_routes, write_routes

ALL = [cities.city(name) for name in cities.NAMES]
each_city = pytest.mark.parametrize("city", ALL, ids=cities.NAMES)


# ---------------------------------------------------------------- slow definitions
def great_circle(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Metres by haversine and the initial bearing in degrees, as textbooks have them."""
    lat, lng, to_lat, to_lng = map(radians, (*a, *b))
    share = sin((to_lat - lat) / 2) ** 2 + cos(lat) * cos(to_lat) * sin((to_lng - lng) / 2) ** 2
    east = sin(to_lng - lng) * cos(to_lat)
    north = cos(lat) * sin(to_lat) - sin(lat) * cos(to_lat) * cos(to_lng - lng)
    return 2 * 6_371_000 * asin(sqrt(share)), degrees(atan2(east, north)) % 360


def apart(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


def named(city: City, leg: Leg) -> landmarks.Landmark | None:
    """The landmark that a leg's text names."""
    return next((mark for mark in city.landmarks if mark.name in leg.landmark), None)


def entropy_of_bearings(city: City) -> float:
    """In nats, of the bearings of streets in 36 sectors of 10 degrees, weighted by length, both directions counted."""
    weights = [0.0] * 36
    for _, _, edge in city.plan.edges(data=True):
        for bearing in (edge["bearing"], edge["bearing"] + 180):
            weights[int(bearing % 360 // 10)] += edge["length"]
    return -sum(w / sum(weights) * log(w / sum(weights)) for w in weights if w)


def share_towards_centre(city: City) -> float:
    """The share of street length that runs towards the middle of the city or across that, within 6 degrees."""
    points = [node["point"] for _, node in city.plan.nodes(data=True)]
    middle = [sum(axis) / len(points) for axis in zip(*points, strict=True)]
    good = 0.0
    for a, b, edge in city.plan.edges(data=True):
        ends = [city.plan.nodes[node]["point"] for node in (min(a, b), max(a, b))]
        at = [sum(axis) / 2 for axis in zip(*ends, strict=True)]
        off = (edge["bearing"] - degrees(atan2(at[0] - middle[0], at[1] - middle[1]))) % 90
        good += edge["length"] * (min(off, 90 - off) < 6)
    return good / city.plan.size("length")


def drift(city: City) -> float:
    """Degrees that a street's bearing changes from one crossing to the next, on average."""
    drifts = []
    for street in city.streets:
        bearings = [great_circle(*(city.plan.nodes[n]["geocode"] for n in piece))[1] for piece in pairwise(street)]
        drifts.append(sum(apart(a, b) for a, b in pairwise(bearings)))
    return sum(drifts) / len(drifts)


# ---------------------------------------------------------------- plans
def test_the_characters_of_the_cities_can_be_measured():
    grid, old, rings, hills = ALL
    assert entropy_of_bearings(grid) < 2 < 3 < min(entropy_of_bearings(city) for city in (old, rings, hills))
    assert share_towards_centre(rings) > 0.9 > 0.2 > max(share_towards_centre(city) for city in (grid, old, hills))
    assert drift(hills) > 12 > 11 > drift(rings) > 5 > 2 > max(drift(city) for city in (grid, old))
    assert any(hills.plan.degree(node) == 1 for node in hills.plan)


@each_city
def test_a_city_is_connected_and_its_streets_are_all_of_it(city: City):
    assert networkx.is_connected(city.plan)
    assert len(city.plan) > 100
    pieces = [frozenset(piece) for street in city.streets for piece in pairwise(street)]
    assert len(pieces) == len(set(pieces)) == city.plan.number_of_edges()
    assert city.streets == tuple(chains(city.plan))
    assert all(city.plan.degree(n) == 2 for street in city.streets for n in street[1:-1])


@each_city
def test_edges_have_the_length_and_bearing_between_their_geocodes(city: City):
    for a, b, edge in city.plan.edges(data=True):
        length, bearing = great_circle(city.plan.nodes[min(a, b)]["geocode"], city.plan.nodes[max(a, b)]["geocode"])
        assert abs(edge["length"] - length) < 0.02
        assert apart(edge["bearing"], bearing) < 0.1
        assert length > 12


@pytest.mark.parametrize("name", cities.NAMES)
def test_a_city_depends_on_its_name_and_seed_alone(name: str):
    def facts(seed: int) -> tuple:
        cities.city.cache_clear()
        city = cities.city(name, seed)
        nodes = [data["geocode"] for _, data in city.plan.nodes(data=True)]
        return nodes, list(city.plan.edges), city.landmarks, cities.routes(city, count=20, seed=3)

    assert facts(5) == facts(5)
    assert facts(5)[0] != facts(6)[0] or facts(5)[1] != facts(6)[1]
    assert facts(5)[2] != facts(6)[2]


def test_other_cities_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"^city 'atlantis' is unknown; known cities are gridport, oldtown"):
        cities.city("atlantis")


@given(st.floats(-3000, 3000), st.floats(-3000, 3000), st.sampled_from(sorted(cities.ORIGINS)))
def test_points_and_geocodes_are_the_same_places(east: float, north: float, name: str):
    origin = cities.ORIGINS[name]
    geocode = geocode_of((east, north), origin)
    back = point_of(geocode, origin)
    assert abs(back[0] - east) < 0.07
    assert abs(back[1] - north) < 0.07
    assert metres(origin, geocode) == pytest.approx((back[0] ** 2 + back[1] ** 2) ** 0.5, rel=1e-3, abs=1e-6)


# ---------------------------------------------------------------- landmarks
@each_city
def test_landmarks_have_names_of_their_own_and_stand_clear_of_streets(city: City):
    assert len({mark.name for mark in city.landmarks}) == len(city.landmarks) > 90
    assert all(words_of(mark.name) == mark.name for mark in city.landmarks)
    for mark in city.landmarks:
        anchor = geocode_of(mark.anchor, city.origin)
        others = [great_circle(anchor, geocode_of(other.anchor, city.origin))[0] for other in city.landmarks]
        assert sorted(others)[1] > 12
        assert 5 < great_circle(anchor, mark.geocode)[0] < 12
        assert great_circle(geocode_of(city.place(mark.geocode).point, city.origin), mark.geocode)[0] > 2.5


def words_of(name: str) -> str:
    colour, emblem, trade = landmarks.parts(name)
    return landmarks.COLOURS[colour] + landmarks.EMBLEMS[emblem] + landmarks.TRADES[trade]


def test_names_of_unseen_cities_were_never_read_whole():
    trained, unseen = landmarks.names(trained=True), landmarks.names(trained=False)
    assert len(set(trained)) == len(set(unseen)) == 192
    assert not set(trained) & set(unseen)
    for words in (landmarks.COLOURS, landmarks.EMBLEMS, landmarks.TRADES):
        for word in words:
            assert any(word in name for name in trained)
            assert any(word in name for name in unseen)
    grid, *others = ALL
    assert {mark.name for mark in grid.landmarks} <= set(trained)
    assert all({mark.name for mark in city.landmarks} <= set(unseen) for city in others)


@given(st.floats(0, 360), st.integers(0, 359))
def test_sides_are_the_nearest_of_eight_directions(towards: float, heading: int):
    turns = dict(zip(prompts.SPATIAL, range(0, 360, 45), strict=True))
    nearest = min(apart(towards, heading + turn) for turn in turns.values())
    assert apart(towards, heading + turns[landmarks.side(towards, heading)]) == pytest.approx(nearest, abs=1e-9)


# ---------------------------------------------------------------- places
@each_city
def test_every_geocode_of_a_street_is_a_place_on_it(city: City):
    for a, b in list(city.plan.edges)[::7]:
        begin, end = (city.plan.nodes[node]["geocode"] for node in (a, b))
        assert city.place(begin).node == a
        between = tuple(x + 0.4 * (y - x) for x, y in zip(begin, end, strict=True))
        place = city.place(between)
        assert place.node is None
        assert set(place.piece) == {a, b}
        assert great_circle(between, geocode_of(place.point, city.origin))[0] < 0.15


def test_a_place_far_from_any_street_is_refused():
    with pytest.raises(DataError, match=r"^41\.720000,-73\.980000 is no place in gridport"):
        ALL[0].place((41.72, -73.98))


@each_city
def test_a_landmark_is_near_its_anchor_and_nowhere_else(city: City):
    for mark in city.landmarks:
        assert city.place(geocode_of(mark.anchor, city.origin)).landmark is mark
        away = mark.anchor[0] + 4, mark.anchor[1] + 4
        assert city.near(away) is None


# ---------------------------------------------------------------- routes
@each_city
def test_a_thousand_distinct_routes_read_back_from_their_file(city: City, tmp_path):
    routes = cities.routes(city, count=1000)
    ways = {(route.start, *(leg.end for leg in route.legs)) for route in routes}
    assert len(routes) == len(ways) == len({route.id for route in routes}) == 1000
    assert {len(route.legs) for route in routes} == {2, 3, 4}
    assert read_routes(write_routes(tmp_path / "routes.json", routes)) == routes


@each_city
def test_legs_have_the_heading_and_distance_between_their_geocodes(city: City):
    for route in cities.routes(city, count=200):
        for begin, leg in zip([route.start, *(leg.end for leg in route.legs)], route.legs, strict=False):
            length, bearing = great_circle(begin, leg.end)
            assert abs(leg.distance_m - length) < 0.06
            assert apart(leg.heading, bearing) < 0.6
            assert length > 24


@each_city
def test_there_is_a_turn_at_every_crossing_of_a_route(city: City):
    for route in cities.routes(city, count=200):
        for before, after in pairwise(route.legs):
            assert 29 <= apart(before.heading, after.heading) <= 151
            assert city.plan.degree(city.place(before.end).node) >= 3
        assert 1 <= route.init_heading <= 359
    assert sum(r.init_heading == r.legs[0].heading for r in cities.routes(city, count=200)) < 10


@each_city
def test_what_is_told_of_a_landmark_is_where_it_stands(city: City):
    told = set()
    for route in cities.routes(city, count=300):
        for leg in route.legs:
            mark = named(city, leg)
            place = city.place(leg.end)
            assert place.landmark is mark
            if mark is None:
                assert leg.landmark == prompts.NO_LANDMARK
                continue
            _, towards = great_circle(leg.end, mark.geocode)
            word = leg.landmark.rpartition(" is on your ")[2]
            told.add(word)
            assert apart(towards, leg.heading + 45 * prompts.SPATIAL.index(word)) < 22.5 + 1.5
            if leg is route.legs[-1]:
                assert leg.landmark == f"The destination {route.destination} is on your {word}"
    assert len(told) >= 6


@each_city
def test_no_landmark_is_near_on_the_way_to_the_one_that_is_told(city: City):
    for route in cities.routes(city, count=60):
        assert city.place(route.start).landmark is None
        for begin, leg in zip([route.start, *(leg.end for leg in route.legs)], route.legs, strict=False):
            for step in range(1, 6):
                spot = tuple(a + step / 6 * (b - a) for a, b in zip(begin, leg.end, strict=True))
                assert city.place(spot).landmark is None


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 2))
@settings(max_examples=12, deadline=None)
def test_fewer_routes_are_the_first_of_more(seed: int, least: int, more: int):
    few = cities.routes(ALL[1], count=5, seed=seed, legs=(least, least + more))
    many = cities.routes(ALL[1], count=15, seed=seed, legs=(least, least + more))
    assert many[:5] == few
    assert all(isinstance(route, Route) and least <= len(route.legs) <= least + more for route in many)


def test_more_routes_than_there_are_and_no_legs_are_refused():
    with pytest.raises(DataError, match=r"^hillcrest: only \d+ distinct routes of 1 to 1 legs were found, not 400"):
        cities.routes(ALL[3], count=400, legs=(1, 1))
    with pytest.raises(ConfigError, match=r"^legs: \(0, 2\): a route has 1 leg at least"):
        cities.routes(ALL[0], count=1, legs=(0, 2))


@each_city
def test_runs_pass_no_landmark_and_keep_their_direction(city: City):
    marked = {mark.node for mark in city.landmarks}
    streets = {mark.street: mark for mark in city.landmarks if mark.street is not None}
    for run in runs_of(city).runs:
        inner = run.crossings[1:-1] if run.target is None and not run.starts else run.crossings[1:]
        assert not marked & set(inner[:-1])
        on_the_way = run.streets[:-1] if run.target else run.streets
        assert not set(streets) & set(on_the_way)
        for a, b in pairwise(run.points):
            assert apart(degrees(atan2(b[0] - a[0], b[1] - a[1])), run.heading) <= 25.6
