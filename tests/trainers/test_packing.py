from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs.base import ConfigError
from tests.trainers.samples import make_episode, make_episodes, make_segment
from trainers.packing import pack, pack_segments
from trainers.thoughts import answer_start, thought_weighted

lengths = st.lists(st.integers(2, 40), min_size=1, max_size=30)


@given(lengths, st.integers(40, 120), st.integers(1, 5))
def test_every_token_has_one_place_within_the_budget(sizes, row_tokens, multiple):
    episodes = [make_episode(make_segment(n - 1, (1, 0.0), seed=i), index=i) for i, n in enumerate(sizes)]
    batch = pack(episodes, row_tokens=row_tokens, rows_multiple=multiple)
    assert len(batch) % multiple == 0
    assert batch.token_ids.shape[1] <= row_tokens
    assert batch.is_token.sum() == sum(sizes)
    for number, episode in enumerate(episodes):
        (segment,) = episode.segments
        row, stop = batch.turns.row[number], batch.turns.stop[number]
        here = slice(stop - len(segment.token_ids), stop)
        assert batch.token_ids[row, here].tolist() == segment.token_ids.tolist()
        assert batch.positions[row, here].tolist() == list(range(len(segment.token_ids)))
        assert batch.sampled[row, here].tolist() == segment.sampled.tolist()


@given(lengths)
def test_rows_are_balanced(sizes):
    batch = pack_segments([make_segment(n) for n in sizes], row_tokens=80)
    loads = batch.is_token.sum(1)
    assert loads.max() - loads.min() <= max(sizes)


def test_the_padding_is_a_segment_of_its_own():
    batch = pack_segments([make_segment(5), make_segment(3), make_segment(3)], row_tokens=7)
    assert batch.token_ids.shape == (2, 6)  # 5 and nothing, 3 and 3
    for row in range(len(batch)):
        padding = batch.positions[row][~batch.is_token[row]]
        assert padding.tolist() == list(range(len(padding)))
    assert not batch.sampled[~batch.is_token].any()


def test_packing_depends_on_its_input_alone():
    first, second = (pack(make_episodes(12), row_tokens=60, rows_multiple=4) for _ in range(2))
    for field in fields(first):
        value = getattr(first, field.name)
        assert not isinstance(value, torch.Tensor) or torch.equal(value, getattr(second, field.name))


def test_a_segment_longer_than_a_row_names_the_setting_and_the_length_it_needs():
    with pytest.raises(ConfigError, match=r"learner\.row_tokens: 16 .* at least 20"):
        pack_segments([make_segment(20)], row_tokens=16)


def test_the_table_of_turns_by_hand():
    # P P P A A F F B     the example of trainers.episode, truncated, with two tokens of feedback after the last answer
    batch = pack([make_episode(make_segment(3, (2, -2.0), (1, -1.0), tail=2), terminated=False)], row_tokens=16)
    turns = batch.turns
    assert (turns.start.tolist(), turns.stop.tolist(), turns.end.tolist()) == ([3, 7], [5, 8], [9, 9])
    assert turns.is_last.tolist() == [False, True]
    assert batch.turn_ids.tolist() == [[-1, -1, -1, 0, 0, -1, -1, 1, -1, -1]]
    assert batch.critic_learns.nonzero().tolist() == [[0, 2], [0, 6]]  # the last token read before each answer
    assert batch.critic_reads.nonzero().tolist() == [[0, 2], [0, 6], [0, 9]]  # and the state it was cut in


def test_with_tokens_as_time_steps_the_critic_reads_before_every_sampled_token():
    batch = pack([make_episode(make_segment(3, (2, -2.0), (1, 5.0)))], row_tokens=16, unit="token")
    assert batch.critic_reads.nonzero().tolist() == [[0, 2], [0, 3], [0, 6]]


def test_an_episode_of_several_segments_ends_once():
    episode = make_episode(make_segment(3, (2, 1.0)), make_segment(4, (1, 5.0)))
    turns = pack([episode, episode], row_tokens=6).turns
    assert turns.episode.tolist() == [0, 0, 1, 1]
    assert turns.is_last.tolist() == [False, True, False, True]


def test_each_epoch_deals_every_row_out_once_and_the_counters_alone_decide_the_order():
    batch = pack(make_episodes(16), row_tokens=30, rows_multiple=4)

    def deal(seed):
        return [part.token_ids for part in batch.shuffled(2, 4, seed=seed)]

    parts = deal((0, 7))
    assert len(parts) == 8
    assert {len(part) for part in parts} == {len(batch) // 4}
    for epoch in (parts[:4], parts[4:]):
        assert sorted(map(tuple, torch.cat(epoch).tolist())) == sorted(map(tuple, batch.token_ids.tolist()))
    assert all(torch.equal(a, b) for a, b in zip(parts, deal((0, 7)), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(parts, deal((0, 8)), strict=True))


WORDS = ["{", '"thought": "', "maybe", '", "formula', '": "', "1+2", '"}', "!"]


def decode(ids):
    return "".join(WORDS[i] for i in ids)


def test_the_answer_starts_at_the_token_its_key_begins_in():
    assert answer_start([0, 1, 2, 3, 4, 5, 6], decode) == 3


def test_without_a_key_the_last_four_tokens_are_the_answer():
    assert answer_start([0, 1, 2, 2, 2, 2, 7], decode) == 3
    assert answer_start([0, 1], decode) == 0


def test_thoughts_weigh_less_than_the_answer():
    segment = make_segment(2, (7, 5.0))
    segment.token_ids[2:] = [0, 1, 2, 3, 4, 5, 6]
    batch = thought_weighted(pack([make_episode(segment)], row_tokens=16), decode, weight=0.5)
    assert batch.logp_weights.tolist() == [[1, 1, 0.5, 0.5, 0.5, 1, 1, 1, 1]]
