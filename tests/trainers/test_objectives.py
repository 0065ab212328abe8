from dataclasses import replace

import pytest
import torch

from tests import oracles
from tests.trainers.samples import make_episode, make_episodes, make_segment
from trainers.config import PpoConfig
from trainers.objectives import Counts, PpoObjective, ReferenceObjective, ppo_objective, with_advantages
from trainers.packing import Batch, pack
from trainers.policy import Outputs


def plain_moments(_values, _mask):
    """Whitening that changes nothing but the tiny constant: the tests below want the advantages themselves."""
    return 0.0, 1.0 - 1e-5


def scored(episodes, **options) -> Batch:
    batch = pack(episodes, row_tokens=64, **options)
    random = torch.Generator().manual_seed(3)
    values = torch.randn(batch.token_ids.shape, generator=random) * batch.critic_reads
    return replace(batch, values=values, old_logp=-torch.rand(values.shape, generator=random) * batch.sampled)


@pytest.mark.parametrize("unit", ["turn", "token"])
def test_packed_advantages_are_the_definition_episode_by_episode(unit):
    episodes = make_episodes(10)
    config = PpoConfig(unit=unit, gamma=0.8, lam=0.7, reward_scale=0.5)
    batch = with_advantages(scored(episodes, unit=unit), config, plain_moments)
    for number, episode in enumerate(episodes):
        turns = (batch.turns.episode == number).nonzero().flatten().tolist()
        row, starts, stops = (
            batch.turns.row[turns[0]],
            batch.turns.start[turns].tolist(),
            batch.turns.stop[turns].tolist(),
        )
        bootstrap = 0.0 if episode.terminated else batch.values[row, batch.turns.end[turns[0]]].item()
        rewards = [0.5 * turn.reward for turn in episode.turns]
        if unit == "turn":
            values = [batch.values[row, start - 1].item() for start in starts]
            expected = oracles.gae(rewards, values, bootstrap, 0.8, 0.7)
            targets = [a + v for a, v in zip(expected, values, strict=True)]
            expected = [a for a, start, stop in zip(expected, starts, stops, strict=True) for _ in range(stop - start)]
        else:
            places = [i for start, stop in zip(starts, stops, strict=True) for i in range(start, stop)]
            values = [batch.values[row, i - 1].item() for i in places]
            lengths = [stop - start for start, stop in zip(starts, stops, strict=True)]
            expected = oracles.token_gae(lengths, rewards, values, bootstrap, 0.8, 0.7)
            targets = [a + v for a, v in zip(expected, values, strict=True)]
        mine = torch.isin(batch.turn_ids[row], torch.tensor(turns))
        assert batch.advantages[row][mine].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        span = torch.arange(len(mine))
        read = batch.critic_learns[row] & (span >= starts[0] - 1) & (span < stops[-1])
        assert batch.returns[row][read].tolist() == pytest.approx(targets, rel=1e-4, abs=1e-5)
    assert not batch.advantages[~batch.sampled].any()


def test_whitening_uses_the_moments_it_is_given():
    seen = {}

    def moments(_values, mask):
        seen["count"] = int(mask.sum())
        return 2.0, 4.0 - 1e-5

    batch = scored(make_episodes(6))
    config = PpoConfig()
    white = with_advantages(batch, config, moments).advantages
    raw = with_advantages(batch, config, plain_moments).advantages
    torch.testing.assert_close(white[batch.sampled], (raw[batch.sampled] - 2) / 4)
    assert seen["count"] == len(batch.turns)  # every turn counts once, however long


def test_the_profiles_differ_where_an_episode_was_truncated_and_only_there():
    cut = make_episode(make_segment(3, (2, -1.0)), terminated=False)
    won = make_episode(make_segment(3, (2, 5.0)))
    paper, reference = PpoConfig(), PpoConfig(profile="reference")

    def estimates(config, *episodes):
        batch = pack(episodes, row_tokens=16)
        batch = replace(batch, values=torch.zeros(batch.token_ids.shape))
        done = with_advantages(batch, config, plain_moments)
        return [done.advantages[r, c].item() for r, c in zip(batch.turns.row, batch.turns.start, strict=True)]

    assert estimates(paper, won, won) == estimates(reference, won, won)
    assert estimates(paper, cut, won) == pytest.approx([-1.0, 5.0])
    assert estimates(reference, cut, won) == pytest.approx([-1.0 + 0.9 * 0.95 * 5.0, 5.0])


def test_the_reference_objective_has_one_weighted_ratio_per_response():
    batch = with_advantages(scored(make_episodes(5)), PpoConfig(profile="reference"), plain_moments)
    random = torch.Generator().manual_seed(5)
    batch = replace(batch, logp_weights=torch.rand(batch.sampled.shape, generator=random))
    logp = -torch.rand(batch.sampled.shape, generator=random) * batch.sampled
    out = Outputs(logp=logp, entropy=torch.zeros_like(logp), values=batch.values)
    config = PpoConfig(profile="reference", clip=0.1, value_coef=0.0)
    objective = ppo_objective(config)
    assert isinstance(objective, ReferenceObjective)
    turns = []
    table = batch.turns
    for row, start, stop in zip(table.row.tolist(), table.start.tolist(), table.stop.tolist(), strict=True):
        here = (row, slice(start, stop))
        columns = (batch.logp_weights[here].tolist(), logp[here].tolist(), batch.old_logp[here].tolist())
        turns.append((*columns, batch.advantages[row, start].item()))
    got = objective.loss(batch, out, Counts(sampled=1, critic=1, turns=len(turns)))
    assert got.item() == pytest.approx(oracles.reference_loss(turns, 0.1), rel=1e-4)


def test_a_response_that_old_weights_alone_would_give_teaches_nothing():
    config = PpoConfig(max_staleness=1, response_bound=1.5, value_coef=0.0)
    batch = with_advantages(scored(make_episodes(6)), config, plain_moments)
    batch = replace(batch, engine_logp=batch.old_logp.clone())
    alien = batch.turn_ids == 2
    counts = Counts(int(batch.sampled.sum()), int(batch.critic_learns.sum()), len(batch.turns))

    def gradient(shift, objective):
        logp = (batch.old_logp * 0.99).requires_grad_()
        shifted = replace(batch, engine_logp=torch.where(alien, batch.old_logp + shift, batch.engine_logp))
        out = Outputs(logp=logp, entropy=torch.zeros_like(logp), values=batch.values)
        (found,) = torch.autograd.grad(objective.loss(shifted, out, counts), logp)
        return found, objective.diagnostics(shifted, out, counts)["responses_masked"].item()

    near, near_share = gradient(0.2, ppo_objective(config))
    far, far_share = gradient(0.6, ppo_objective(config))
    kept, _ = gradient(0.6, ppo_objective(config.model_copy(update={"response_bound": None})))
    assert near[alien].abs().sum() > 0
    assert near_share == 0
    assert (far[alien] == 0).all()
    assert far_share == pytest.approx(int(alien.sum()) / counts.sampled)
    assert kept[alien].abs().sum() > 0
    torch.testing.assert_close(far[~alien], near[~alien])


@pytest.mark.parametrize("profile", ["paper", "reference"])
def test_the_loss_of_the_rows_one_by_one_adds_up_to_the_whole(profile):
    config = PpoConfig(profile=profile, entropy_coef=0.01, kl_coef=0.1, max_staleness=int(profile == "paper"))
    batch = with_advantages(scored(make_episodes(20)), config, plain_moments)
    logp = batch.old_logp * 1.1
    batch = replace(batch, reference_logp=batch.old_logp * 0.9)
    out = Outputs(logp=logp, entropy=-logp, values=batch.values + 0.3)
    counts = Counts(int(batch.sampled.sum()), int(batch.critic_learns.sum()), len(batch.turns))
    objective = ppo_objective(config)
    parts = [torch.tensor([i]) for i in range(len(batch))]
    assert len(parts) > 2
    total = sum(objective.loss(batch.rows(i), Outputs(*(x[i] for x in out)), counts).item() for i in parts)
    assert total == pytest.approx(objective.loss(batch, out, counts).item(), rel=1e-4)


def test_while_the_critic_learns_alone_the_advantages_do_not_matter():
    batch = with_advantages(scored(make_episodes(6)), PpoConfig(), plain_moments)
    out = Outputs(logp=batch.old_logp * 1.2, entropy=batch.old_logp, values=batch.values + 1)
    counts = Counts(10, 10, 10)
    objective = PpoObjective(PpoConfig(), critic_alone=True)
    other = replace(batch, advantages=batch.advantages * 100)
    assert objective.loss(batch, out, counts) == objective.loss(other, out, counts)
