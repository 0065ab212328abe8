import json
import pickle
import random
from pathlib import Path

import pytest

import envs
from envs.base import ConfigError, DataError
from envs.task import State, Status, Task
from envs.virl import Virl
from envs.virl.routes import Leg, Route, write_routes


def test_a_task_depends_on_its_counters_alone():
    for options in ({}, {"drop_rate": 0.5, "straight_line_length": 5}):
        expected = [Virl(**options).sample(7, step, index) for step in range(3) for index in range(20)]
        other, shuffled = Virl(**options), list(range(60))
        random.Random(0).shuffle(shuffled)
        found = {i: other.sample(7, i // 20, i % 20) for i in shuffled}
        assert [found[i] for i in range(60)] == expected
        assert len({task.id for task in expected}) > 50


def test_equal_ids_are_equal_walks_and_steps_are_left_out_anew_for_each_task():
    walk = Virl(drop_rate=0.5, straight_line_length=5)
    found: dict[str, Task] = {}
    for index in range(400):
        task = walk.sample("drop", index)
        assert found.setdefault(task.id, task) == task
    assert len({walk.identity(task) for task in found.values()}) < len(found)
    steps = [entry[0] for task in found.values() for entry in task.data["rail"]].count("forward()")
    possible = sum(len(task.data["instructions"]) // 2 * 5 for task in found.values())
    assert 0.45 < steps / possible < 0.55


def test_a_pool_of_deals_is_finite_distinct_and_a_part_of_larger_pools():
    for options in ({}, {"drop_rate": 0.5}, {"city": "oldtown", "split": "train"}):
        walks = [Virl(deals=deals, **options) for deals in (20, 40)]
        seen = [{walk.sample(0, i).id for i in range(600)} for walk in walks]
        assert list(map(len, seen)) == [20, 40]
        assert seen[0] < seen[1]


def test_a_pool_larger_than_what_there_is_says_so():
    with pytest.raises(ConfigError, match=r"^virl options: deals: 700: only 600 different walks exist$"):
        Virl(deals=700).sample(0)
    shorter = Virl(deals=700, drop_rate=0.5)
    assert len({shorter.sample(0, i).id for i in range(5000)}) > 690


def test_splits_share_no_route_and_make_up_the_whole():
    routes = {}
    for split in ("all", "train", "held_out"):
        walk = Virl(split=split)
        routes[split] = {walk.identity(walk.sample(split, index)) for index in range(5000)}
    assert routes["train"] | routes["held_out"] == routes["all"]
    assert not routes["train"] & routes["held_out"]
    assert 0.05 < len(routes["held_out"]) / len(routes["all"]) < 0.16
    assert len(routes["all"]) == 600


@pytest.mark.parametrize("legs", [[1, 1], [3, 5]])
def test_routes_have_the_legs_that_are_asked_for_as_many_as_a_city_has(legs: list[int]):
    walk = Virl(city="ringhaven", legs=legs)
    lengths = {len(walk.sample(index).data["instructions"]) // 2 for index in range(200)}
    assert lengths == set(range(legs[0], legs[1] + 1))


def test_seeds_name_other_cities():
    first, second = (Virl(seed=seed).sample(0) for seed in (0, 1))
    assert first.id != second.id
    assert second.id.startswith("gridport-1-")


def test_of_old_a_quarter_of_turns_is_named_wrongly_in_instruction_and_answer_alike():
    wrapped, legacy = (Virl(actions="relative", legacy_headings=old) for old in (False, True))
    differ = []
    for index in range(400):
        rails = [walk.sample(index).data for walk in (wrapped, legacy)]
        for data in rails:
            turns = [entry for entry in data["rail"] if entry[0].startswith("turn")]
            assert all(f"urn {action[15:-1]} to face" in data["instructions"][line] for action, _, _, line, *_ in turns)
        pairs = zip(*(data["instructions"][::2] for data in rails), strict=True)
        differ += [one != other for one, other in pairs]
    assert 0.18 < sum(differ) / len(differ) < 0.32


# ---------------------------------------------------------------- routes of a file
NAMES = (
    'Joe\'s "Bar" is on your left',
    "{The} } Brace is on your right",
    'Sly", "action": "stop() is on your left',
    "The intersection bar; a pub is on your right",
    "Two\\nlines \\ is on your left behind",
    "A real\nline break is on your front",
    "Zoë’s 東京 Café is on your left front",
)


def route(number: int, init_heading: int = 90, landmarks: tuple[str, ...] = NAMES) -> Route:
    """East, south, east, … with those landmarks."""
    x, y = 40.7 + number / 100, -74.0
    ends = [(x - 0.001 * (n // 2), y + 0.001 * ((n + 1) // 2)) for n in range(1, len(landmarks) + 1)]
    legs = tuple(
        Leg(heading=90 + 90 * (n % 2), distance_m=80.0, landmark=landmark, end=end)
        for n, (landmark, end) in enumerate(zip(landmarks, ends, strict=True))
    )
    return Route(id=f"file-{number}", start=(x, y), init_heading=init_heading, destination="x", legs=legs)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_routes(tmp_path / "routes.json", [route(number) for number in range(12)])


@pytest.mark.parametrize("actions", ["absolute", "relative"])
def test_names_may_hold_anything_and_experts_are_right_and_mistakes_wrong(path: Path, actions: str):
    for options in ({}, {"rewards": "reference", "legacy_intersections": True, "legacy_headings": True}):
        walk = Virl(routes=str(path), actions=actions, **options)
        task = walk.sample(0)
        assert [entry[1] for entry in task.data["rail"] if entry[1] in NAMES] == list(NAMES)
        for state in walk.states(task):
            right = walk.expert(task, state)
            verdict, after = walk.verify(task, state, right)
            assert (verdict.status, after.position) == (Status.CORRECT, state.position + 1)
            assert walk.observes(task, state.position, right)
            assert task.data["rail"][state.position][1] in walk.prompt(task, state)[0].text
            wrong, _ = walk.verify(task, state, walk.mistake(task, state))
            assert wrong.reward < 0
            at_fault = right.replace(task.data["rail"][state.position][0], "dance()")  # all else as it is
            if not options and '"stop()' not in right:
                assert walk.verify(task, state, at_fault)[0].status is Status.WRONG_ACTION


def test_a_walk_of_a_file_is_judged_where_the_file_is_not(path: Path):
    task = Virl(routes=str(path), drop_rate=0.5).sample(0)
    path.unlink()
    envs._made.cache_clear()
    walk = envs.make("virl", **json.loads(json.dumps(task.options)))
    for state in walk.states(task):
        assert walk.verify(task, state, walk.expert(task, state))[0].status is Status.CORRECT
        assert walk.prompt(task, state)
    with pytest.raises(DataError, match=r"routes\.json: No such file or directory$"):
        walk.sample(0)


def test_a_file_that_is_malformed_or_has_no_route_in_a_split_says_so(tmp_path: Path):
    few = write_routes(tmp_path / "few.json", [route(0)])
    problems = []
    for split in ("train", "held_out"):
        try:
            Virl(routes=str(few), split=split).sample(0)
        except DataError as error:
            problems.append((split, str(error)))
    ((split, problem),) = problems
    assert problem == f"{few}: none of its 1 routes belongs to the split {split!r}"
    few.write_text("[[{}], 1]")
    with pytest.raises(DataError, match=r"few\.json: route 0: "):
        Virl(routes=str(few)).sample(0)


def test_a_new_environment_reads_a_file_anew(path: Path):
    assert Virl(routes=str(path)).sample(0).data["rail"][0][4] == 90
    write_routes(path, [route(0, init_heading=45)])
    assert Virl(routes=str(path)).sample(0).data["rail"][0][4] == 45


def test_an_initial_heading_of_0_is_any_drawn_for_each_task(tmp_path: Path):
    path = write_routes(tmp_path / "any.json", [route(0, init_heading=0, landmarks=NAMES[:2])])
    walk = Virl(routes=str(path))
    tasks = [walk.sample(index) for index in range(200)]
    headings = [task.data["rail"][0][4] for task in tasks]
    assert len(set(headings)) > 100
    assert all(0 < heading < 360 for heading in headings)
    other = Virl(routes=str(path))
    assert [other.sample(index) for index in range(200)] == tasks
    assert len({task.id for task in tasks}) == len(set(headings))
    assert {walk.identity(task) for task in tasks} == {"file-0"}
    for task, heading in zip(tasks, headings, strict=True):  # the first leg goes east
        turned = (90 - heading + 180) % 360 - 180 or 0
        word = (
            "right" if turned > 45 else "left" if turned < -45 else "slightly right" if turned > 0 else "slightly left"
        )
        if turned != -180:
            assert task.data["instructions"][0] == f"First, turn {word} to face east."
    pool = Virl(routes=str(path), deals=50)
    assert len({pool.sample(index).id for index in range(600)}) == 50


def test_steps_are_moved_to_where_there_are_panoramas(tmp_path: Path):
    landmarks = ("A is on your left", "The destination B is on your right")
    only = route(0, landmarks=landmarks)
    path = write_routes(tmp_path / "routes.json", [only])
    near = (40.70002, -73.9995)  # half way along the first leg of 84 m
    (tmp_path / "gps_pano_mapping.pkl").write_bytes(pickle.dumps({near: "a", only.legs[0].end: "b"}))
    steps = {}
    for legacy in (False, True):
        walk = Virl(routes=str(path), panoramas=str(tmp_path), straight_line_length=5, legacy_legs=legacy)
        task = walk.sample(0)
        steps[legacy] = [tuple(entry[5]) for entry in task.data["rail"] if entry[0] == "forward()"]
        assert walk.verify(task, State(attempts_left=1), walk.expert(task, walk.start(task)))[0].reward == 1
    assert steps[False] == [near]
    assert steps[True] == [near] * 3
