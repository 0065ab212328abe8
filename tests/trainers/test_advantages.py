import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles
from trainers.advantages import reference_ends, token_advantages, turn_advantages, whiten

number = st.floats(-5, 5, width=32)
episodes = st.lists(
    st.tuples(st.lists(st.tuples(number, number), min_size=1, max_size=6), number), min_size=1, max_size=5
)
discount = st.floats(0, 1)


def flat(episodes):
    """(rewards, values, bootstraps, is_last) of [(turns, bootstrap)], turns as (reward, value)."""
    rewards, values, bootstraps, is_last = [], [], [], []
    for turns, bootstrap in episodes:
        for index, (reward, value) in enumerate(turns):
            rewards.append(reward)
            values.append(value)
            is_last.append(index == len(turns) - 1)
            bootstraps.append(bootstrap if is_last[-1] else float("nan"))  # must not be read
    return (*map(torch.tensor, (rewards, values, bootstraps)), torch.tensor(is_last))


def test_two_failures_and_a_success_by_hand():
    # δ = (−2 + .9·.5 − 0, −2 + .9·1 − .5, 5 + 0 − 1) = (−1.55, −1.6, 4); γλ = .45
    got = turn_advantages(
        torch.tensor([-2.0, -2.0, 5.0]), torch.tensor([0.0, 0.5, 1.0]), torch.zeros(3),
        torch.tensor([False, False, True]), gamma=0.9, lam=0.5,
    )  # fmt: skip
    assert got.tolist() == pytest.approx([-1.55 + 0.45 * (-1.6 + 0.45 * 4), -1.6 + 0.45 * 4, 4.0])


@given(episodes, discount, discount)
def test_turn_advantages_are_the_definition(episodes, gamma, lam):
    got = turn_advantages(*flat(episodes), gamma=gamma, lam=lam)
    expected = [
        a
        for turns, bootstrap in episodes
        for a in oracles.gae(*map(list, zip(*turns, strict=True)), bootstrap, gamma, lam)
    ]
    assert got.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@given(st.lists(st.tuples(st.integers(1, 4), number), min_size=1, max_size=4), number, discount, discount, st.data())
def test_token_advantages_are_the_definition(turns, bootstrap, gamma, lam, data):
    lengths, turn_rewards = zip(*turns, strict=True)
    tokens = sum(lengths)
    values = data.draw(st.lists(number, min_size=tokens, max_size=tokens))
    ends = torch.zeros(tokens, dtype=torch.bool)
    ends[torch.tensor(lengths).cumsum(0) - 1] = True
    rewards = torch.zeros(tokens)
    rewards[ends] = torch.tensor(turn_rewards)
    is_last = torch.arange(tokens) == tokens - 1
    got = token_advantages(
        rewards, torch.tensor(values), torch.full((tokens,), bootstrap), is_last, ends, gamma=gamma, lam=lam
    )
    expected = oracles.token_gae(lengths, turn_rewards, values, bootstrap, gamma, lam)
    assert got.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@given(episodes, discount, discount)
def test_with_one_token_per_turn_both_units_agree(episodes, gamma, lam):
    arrays = flat(episodes)
    every = torch.ones(len(arrays[0]), dtype=torch.bool)
    torch.testing.assert_close(
        token_advantages(*arrays, every, gamma=gamma, lam=lam), turn_advantages(*arrays, gamma=gamma, lam=lam)
    )


def test_a_long_answer_is_not_discounted_within():
    tokens = 400
    last = torch.arange(tokens) == tokens - 1
    got = token_advantages(last.float(), torch.zeros(tokens), torch.zeros(tokens), last, last, gamma=0.5, lam=1.0)
    assert torch.equal(got, torch.ones(tokens))


def test_nothing_leaks_from_one_episode_into_the_one_before():
    is_last = torch.tensor([False, True, True])
    quiet, loud = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 1e6])

    def estimate(rewards):
        return turn_advantages(rewards, torch.zeros(3), torch.zeros(3), is_last, gamma=0.9, lam=0.95)

    assert torch.equal(estimate(quiet)[:2], estimate(loud)[:2])


def test_a_truncated_episode_goes_on_in_the_critics_estimate_and_a_terminated_one_ends():
    rewards, values, last = torch.tensor([-1.0]), torch.tensor([0.0]), torch.tensor([True])
    truncated = turn_advantages(rewards, values, torch.tensor([2.0]), last, gamma=0.9, lam=0.95)
    terminated = turn_advantages(rewards, values, torch.tensor([0.0]), last, gamma=0.9, lam=0.95)
    assert truncated.item() == pytest.approx(-1 + 0.9 * 2)
    assert terminated.item() == -1


def test_the_reference_profile_runs_on_past_a_truncated_episode_into_the_next():
    is_last = torch.tensor([False, True, True, True])
    terminated = torch.tensor([False, False, True, False])  # truncated, terminated, truncated at the end of the batch
    assert reference_ends(is_last, terminated).tolist() == [False, False, True, True]

    def estimate(ends, reward):
        rewards = torch.tensor([0.0, 0.0, reward, 0.0])
        return turn_advantages(rewards, torch.zeros(4), torch.zeros(4), ends, gamma=0.9, lam=1.0)

    leaking = estimate(reference_ends(is_last, terminated), 1.0)
    assert leaking.tolist() == pytest.approx([0.81, 0.9, 1.0, 0.0])
    assert estimate(is_last, 1.0).tolist() == [0.0, 0.0, 1.0, 0.0]


def test_whitened_advantages_have_mean_zero_and_deviation_one():
    advantages = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 7 + 3
    white = whiten(advantages, advantages.mean().item(), advantages.std(correction=0).item())
    assert white.mean().item() == pytest.approx(0, abs=1e-5)
    assert white.std(correction=0).item() == pytest.approx(1, abs=1e-4)
