import json

import pytest

import envs
from envs.base import ConfigError
from envs.virl import Virl


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"city": "paris"}, "city: 'paris': no city of ours; known cities are gridport, oldtown, ringhaven, hillcrest"),
        ({"city": 3}, "city: 3: input should be a valid string"),
        ({"actions": "compass"}, "actions: 'compass': input should be 'absolute' or 'relative'"),
        ({"action": "relative"}, "action: unknown key; did you mean 'actions'?"),
        ({"legs": [3, 2]}, "legs: [3, 2]: the fewest legs come first"),
        ({"legs": 3}, "legs: 3: write the fewest and the most, as [2, 3]"),
        ({"legs": [2]}, "legs: [2]: write the fewest and the most, as [2, 3]"),
        ({"legs": [0, 3]}, "legs.0: 0: input should be greater than or equal to 1"),
        ({"legs": ["2", 3]}, "legs.0: '2': input should be a valid integer"),
        ({"viter": 0}, "viter: 0: input should be greater than or equal to 1"),
        ({"viter": "2"}, "viter: '2': input should be a valid integer"),
        ({"drop_rate": 1}, "drop_rate: 1: input should be less than 1"),
        ({"drop_rate": "0.5"}, "drop_rate: '0.5': input should be a valid number"),
        ({"drop_rate": float("nan")}, "drop_rate: nan: input should be less than 1"),
        ({"straight_line_length": -1}, "straight_line_length: -1: input should be greater than or equal to 0"),
        ({"split": "test"}, "split: 'test': input should be 'all', 'train' or 'held_out'"),
        ({"deals": 0}, "deals: 0: input should be greater than or equal to 1"),
        ({"resolution": 8}, "resolution: 8: input should be greater than or equal to 32"),
        ({"panoramas": "x"}, "panoramas: 'x': panoramas belong to a route file; name it under routes"),
        (
            {"modality": "vision", "routes": "x"},
            "panoramas: None: a route file in vision needs its panoramas; name their folder here",
        ),
    ],
)
def test_an_option_that_cannot_be_is_one_sentence(options: dict, problem: str):
    with pytest.raises(ConfigError) as error:
        envs.make("virl", **options)
    assert str(error.value) == f"virl options: {problem}"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"action": "forward"}, "state: action: 'forward': no action; write forward(), stop() or turn_direction(x)"),
        ({"action": "turn_direction(up)"}, "state: action: 'turn_direction(up)': no action"),
        ({"action": None}, "state: action: None: "),
        (
            {"intersection": "no"},
            "state: intersection: 'no': no intersection; write 'You observe an intersection', or ''",
        ),
        ({"intersection": True}, "state: intersection: True: "),
        ({"landmark": 3}, "state: landmark: 3: "),
        ({"landmarks": "x"}, "state: landmarks: unknown key; did you mean 'landmark'"),
    ],
)
def test_a_position_that_cannot_be_is_one_sentence(changes: dict, problem: str):
    spot = {"action": "stop()", "landmark": "", "intersection": "", "instruction": ""}
    with pytest.raises(ConfigError) as error:
        Virl().task_of({**spot, **changes})
    assert str(error.value).startswith(problem)
    assert "\n" not in str(error.value)


def test_options_name_a_task_in_json_and_no_looks_where_nothing_is_seen():
    for options in ({}, {"legs": [2, 4], "drop_rate": 0}, {"modality": "vision", "resolution": 96}):
        walk = Virl(**options)
        dumped = walk.options.model_dump()
        assert json.loads(json.dumps(dumped)) == dumped
        assert Virl(**dumped).options.model_dump() == dumped == dict(walk.sample(0).options)
        assert ("resolution" in dumped) == (walk.options.modality == "vision")
