import warnings
from itertools import pairwise

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import envs.gymnasium_face
from envs.general_points import GeneralPoints
from envs.virl import Virl


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GeneralPoints", {}),
        ("GeneralPoints", {"face_cards": "rank", "rewards": "reference"}),
        ("GeneralPoints", {"modality": "vision", "resolution": 96}),
        ("VIRL", {}),
        ("VIRL", {"actions": "relative", "rewards": "reference", "drop_rate": 0.5}),
        ("VIRL", {"modality": "vision", "resolution": 64}),
    ],
)
def test_gymnasium_finds_nothing_to_complain_of(name: str, options: dict):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(f"viter/{name}-v0", **options).unwrapped)


def test_an_episode_goes_from_prompt_to_feedback_to_reward():
    env = gymnasium.make("viter/GeneralPoints-v0")
    game = GeneralPoints()
    task = game.sample(1)
    prompt, info = env.reset(options={"task": task})
    assert (prompt, info["task"]) == (game.prompt(task, game.start(task))[0].text, task.id)
    heard, reward, terminated, truncated, info = env.step("no")
    assert (heard, reward, terminated, truncated) == (
        "You failed this trial because illegal characters.",
        -3,
        False,
        False,
    )
    *_, reward, terminated, truncated, info = env.step(game.expert(task, game.start(task)))
    assert (reward, terminated, truncated, info["status"]) == (5, True, False, "correct")


def test_where_cards_are_seen_the_picture_stays_in_sight_until_the_next_task():
    env = gymnasium.make("viter/GeneralPoints-v0", modality="vision", resolution=96)
    game = GeneralPoints(modality="vision", resolution=96)
    task = game.sample(1)
    (prompt,) = game.prompt(task, game.start(task))
    shown, _ = env.reset(options={"task": task})
    assert shown["text"] == prompt.text
    assert (shown["image"] == game.image(task.id)).all()
    heard, reward, *_ = env.step("no")
    assert (heard["text"], reward) == ("You failed this trial because you recognized wrong cards", -1.5)
    assert (heard["image"] == shown["image"]).all()
    other, _ = env.reset(options={"task": game.sample(2)})
    assert (other["image"] != shown["image"]).any()
    assert env.observation_space["image"].shape == (96, 96, 3)


def test_a_walk_goes_from_prompt_to_longer_prompt_until_it_arrives():
    env = gymnasium.make("viter/VIRL-v0", actions="relative")
    walk = Virl(actions="relative")
    task = walk.sample(1)
    states = walk.states(task)
    prompt, info = env.reset(options={"task": task})
    assert (prompt, info["task"]) == (walk.prompt(task, states[0])[0].text, task.id)
    heard, reward, terminated, truncated, info = env.step("no")
    assert heard.startswith("You failed this trial because you make incorrect action.")
    assert (reward, terminated, truncated, info["status"]) == (-1, False, False, "wrong_action")
    for state, following in pairwise(states):
        shown, reward, terminated, truncated, _ = env.step(walk.expert(task, state))
        assert (shown, reward, terminated, truncated) == (walk.prompt(task, following)[0].text, 1, False, False)
    _, reward, terminated, truncated, info = env.step(walk.expert(task, states[-1]))
    assert (reward, terminated, truncated, info["status"]) == (1, True, False, "correct")


def test_where_walks_are_seen_the_picture_changes_with_the_position():
    env = gymnasium.make("viter/VIRL-v0", modality="vision", resolution=64)
    walk = Virl(modality="vision", resolution=64)
    task = walk.sample(1)
    shown, _ = env.reset(options={"task": task})
    for state in walk.states(task)[:2]:
        (prompt,) = walk.prompt(task, state)
        assert shown["text"] == prompt.text
        assert (shown["image"] == walk.image(prompt.images[0])).all()
        before, (shown, *_) = shown, env.step(walk.expert(task, state))
        assert (shown["image"] != before["image"]).any()


def test_a_seed_fixes_all_tasks_that_follow():
    def tasks(seed: int) -> list[str]:
        env = gymnasium.make("viter/GeneralPoints-v0")
        return [env.reset(seed=seed)[1]["task"], *(env.reset()[1]["task"] for _ in range(5))]

    assert tasks(1) == tasks(1) != tasks(2)
    assert len(set(tasks(1))) == 6


def test_a_step_before_a_reset_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.gymnasium_face.TextEnv("general_points").step("x")
