import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import envs.gymnasium_face
from envs.general_points import GeneralPoints


@pytest.mark.parametrize(
    "options", [{}, {"face_cards": "rank", "rewards": "reference"}, {"modality": "vision", "resolution": 96}]
)
def test_gymnasium_finds_nothing_to_complain_of(options: dict):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("viter/GeneralPoints-v0", **options).unwrapped)


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


def test_a_seed_fixes_all_tasks_that_follow():
    def tasks(seed: int) -> list[str]:
        env = gymnasium.make("viter/GeneralPoints-v0")
        return [env.reset(seed=seed)[1]["task"], *(env.reset()[1]["task"] for _ in range(5))]

    assert tasks(1) == tasks(1) != tasks(2)
    assert len(set(tasks(1))) == 6


def test_a_step_before_a_reset_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.gymnasium_face.TextEnv("general_points").step("x")
