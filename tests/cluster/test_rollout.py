from dataclasses import dataclass

import numpy as np
import pytest

import envs
from cluster.rollout import Decoding, Quarantined, play, turn_seeds
from envs.base import DataError, seed_of
from envs.task import Message, State, Status, Task, Verdict
from tests.cluster.players import WRONG, Script, chat_format, game, here, reply

CHAT = chat_format()
GAME = game()
DECODING = Decoding(temperature=1.0, max_tokens=128, max_model_len=1024)


def task_number(index: int) -> Task:
    return GAME.sample(0, "train", 0, index)


def right(task: Task) -> str:
    return GAME.expert(task, GAME.start(task), 0)


async def played(texts, *, environment=GAME, verify=None, decoding=DECODING, generate=None):
    task = environment.sample(0, "train", 0, 0)
    generate = generate or Script(CHAT, texts)
    verify = verify or here(environment)
    outcome = await play(task, environment, CHAT, generate, verify, decoding=decoding, seeds=turn_seeds(7, 0, 0))
    return task, generate, outcome


async def test_a_wrong_answer_is_told_so_and_may_be_revised():
    task, script, episode = await played([WRONG, right(task_number(0))])
    assert [turn.status for turn in episode.turns] == [Status.ILLEGAL_FORMULA, Status.CORRECT]
    assert episode.is_success
    assert episode.terminated
    assert not episode.truncated
    assert episode.turns[0].answer == WRONG
    assert episode.turns[0].feedback in CHAT.decode(script.histories[1])
    assert task.data == episode.task.data


async def test_the_learner_gets_the_very_tokens_that_were_read_and_drawn():
    _, script, episode = await played([WRONG, right(task_number(0))])
    (segment,) = episode.segments
    first, second = segment.turns
    ids = segment.token_ids.tolist()
    assert ids[: first.start] == script.histories[0]
    assert ids[: second.start] == script.histories[1]
    assert ids[first.start : first.stop] == CHAT.reply_ids(WRONG)
    drawn = np.zeros(len(ids), bool)
    for turn in segment.turns:
        drawn[turn.start : turn.stop] = True
    assert (segment.sampled == drawn).all()
    assert (segment.engine_logp[~drawn] == 0).all()
    assert (segment.weight_versions == np.where(drawn, 0, -1)).all()
    assert episode.usage.sampled_tokens == drawn.sum()
    assert episode.usage.prefill_tokens == first.start + second.start


async def test_when_the_attempts_are_used_up_nothing_more_is_drawn():
    _, script, episode = await played([WRONG] * 9)
    assert len(script.seeds) == 3
    assert episode.truncated
    assert not episode.overflowed
    assert not episode.is_success
    last = episode.segments[0].turns[-1]
    behind = episode.segments[0].token_ids[last.stop :].tolist()
    assert last.feedback in CHAT.decode(behind)  # the state that the critic values after the cut


async def test_a_history_without_room_for_an_answer_truncates_and_says_so():
    prompt = len(CHAT.prompt_ids(GAME.prompt(task_number(0), GAME.start(task_number(0)))))
    tight = Decoding(max_tokens=100, max_model_len=prompt + 110)
    _, script, episode = await played([WRONG] * 9, decoding=tight)
    assert 1 <= len(script.seeds) < 3
    assert episode.truncated
    assert episode.overflowed
    assert max(len(s.token_ids) for s in episode.segments) <= tight.max_model_len


async def test_a_prompt_without_room_for_one_answer_is_a_mistake_in_the_settings():
    with pytest.raises(DataError, match=r"max_model_len 130.*prompt of"):
        await played([WRONG], decoding=Decoding(max_tokens=128, max_model_len=130))


@pytest.mark.parametrize("status", [Status.TIMEOUT, Status.CRASHED])
async def test_a_failure_of_the_verifier_is_never_a_reward(status: Status):
    async def broken(task, state, answer):
        if state.attempts_left < 3:
            return Verdict(reward=0.0, status=status, feedback="it broke"), state
        return GAME.verify(task, state, answer)

    task, _, outcome = await played([WRONG, "24"], verify=broken)
    assert isinstance(outcome, Quarantined)
    assert (outcome.task, outcome.status, outcome.reason) == (task, status, "it broke")
    assert (outcome.answer, outcome.state.attempts_left, outcome.weight_version) == ("24", 2, 0)
    assert [(turn.answer, turn.before.attempts_left) for turn in outcome.heard] == [(WRONG, 3)]


async def test_the_seed_of_a_turn_depends_on_its_counters_alone():
    _, first, _ = await played([WRONG] * 3)
    _, second, _ = await played([WRONG] * 3)
    assert first.seeds == second.seeds
    assert len(set(first.seeds)) == 3
    others = {
        turn_seeds(run, step, index)(turn) for run in (7, 8) for step in (0, 1) for index in (0, 1) for turn in (0, 1)
    }
    assert len(others) == 16
    assert all(0 <= seed < 2**63 for seed in others)


@pytest.mark.parametrize(
    ("environment", "options"),
    [("general_points", {}), ("virl", {"actions": "absolute"}), ("virl", {"actions": "relative"})],
)
async def test_more_verification_iterations_only_go_on_from_fewer(environment: str, options: dict):
    """The first 3 turns at a position with viter 10 are those with viter 3, under the same seeds."""

    async def drawn(token_ids, *, seed, **_):  # like a real engine, a function of history and seed alone
        return reply(CHAT.reply_ids(f"Answer {seed_of(seed, *token_ids) % 1000}."), prompt_tokens=len(token_ids))

    room = Decoding(max_tokens=32, max_model_len=8192)
    for index in range(5):
        few, many = [
            await play(game.sample(0, "train", 0, index), game, CHAT, drawn, here(game), decoding=room,
                       seeds=turn_seeds(7, 0, index))
            for game in (envs.make(environment, **options, viter=viter) for viter in (3, 10))
        ]  # fmt: skip
        assert [len(few.turns), len(many.turns)] == [3, 10]
        last = few.segments[0].turns[-1]
        for first, second in zip(few.turns, many.turns, strict=False):
            assert (first.answer, first.start, first.stop) == (second.answer, second.start, second.stop)
            assert first is last or (first.status, first.reward) == (second.status, second.reward)
        assert few.segments[0].token_ids[: last.stop].tolist() == many.segments[0].token_ids[: last.stop].tolist()


@dataclass
class Walk:
    """Two positions; the word `on` leads to the next, any other costs an attempt."""

    name: str = "walk"
    options: object = None

    def sample(self, *counters):
        return Task(environment="walk", options={}, id="walk", data={})

    def start(self, task):
        return State(attempts_left=2)

    def prompt(self, task, state):
        return (Message(role="user", text=f"position {state.position}"),)

    def feedback(self, verdict):
        return Message(role="user", text=verdict.feedback)

    def verify(self, task, state, answer):
        if answer != "on":
            return Verdict(reward=-1, status=Status.WRONG_ACTION, feedback="no"), State(
                attempts_left=1, position=state.position
            )
        done = state.position == 1
        verdict = Verdict(reward=1, status=Status.CORRECT, feedback="yes", terminated=done)
        return verdict, State(attempts_left=2, position=state.position + 1, is_over=done)


async def test_a_rebuilt_prompt_starts_a_new_segment():
    _, _, episode = await played(["off", "on", "on"], environment=Walk())
    assert [[turn.answer for turn in segment.turns] for segment in episode.segments] == [["off", "on"], ["on"]]
    opening = CHAT.prompt_ids((Message(role="user", text="position 1"),))
    assert episode.segments[1].token_ids[: len(opening)].tolist() == opening
    assert episode.segments[0].token_ids[-1] == CHAT.end_id  # a correct action is answered by the next prompt
    assert episode.is_success


async def test_each_turn_is_told_as_it_is_judged():
    task = task_number(0)
    script = Script(CHAT, [WRONG, right(task)])
    heard = []

    def on_turn(turn) -> None:
        heard.append((turn, len(script.histories)))

    seeds = turn_seeds(7)
    await play(task, GAME, CHAT, script, here(GAME), decoding=DECODING, seeds=seeds, on_turn=on_turn)
    assert [(turn.answer, answers) for turn, answers in heard] == [(WRONG, 1), (right(task), 2)]
    assert [turn.verdict.status for turn, _ in heard] == [Status.ILLEGAL_FORMULA, Status.CORRECT]
    assert heard[0][0].after == heard[1][0].before
    assert heard[1][0].after.is_over
