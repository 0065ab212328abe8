import asyncio
import math
from collections import Counter
from dataclasses import replace

import pytest

import envs
from cluster.verifiers import BATCH, JudgeDied, VerifierPool, VerifierWorker
from envs.task import State, Status, Task
from tests.cluster.players import game

GAME = game()
TASK = GAME.sample(0, "train", 0, 0)
STATE = GAME.start(TASK)
RIGHT = GAME.expert(TASK, STATE, 0)


class Judging:
    """A judge in this process. `kill` is an answer that ends it; `hang` is one it never answers; it can be `down`."""

    def __init__(self, *, down: bool = False):
        self.batches: list[list[str]] = []
        self.revivals = 0
        self.down = down

    async def judge(self, questions):
        answers = [answer for _, _, answer in questions]
        self.batches.append(answers)
        await asyncio.sleep(0)
        if self.down:
            raise JudgeDied("nobody there")
        if "kill" in answers:
            self.down = True
            raise JudgeDied("segmentation fault")
        if "hang" in answers:
            await asyncio.Event().wait()
        return VerifierWorker().judge(questions)

    async def revive(self):
        self.revivals += 1
        self.down = False


class Gone(Judging):
    async def revive(self):
        raise JudgeDied("still nobody there")


async def verdicts(pool: VerifierPool, answers: list[str]) -> list[Status]:
    judged = await asyncio.gather(*(pool.verify(TASK, STATE, answer) for answer in answers))
    await pool.close()
    return [verdict.status for verdict, _ in judged]


def test_a_worker_judges_a_batch_in_order():
    judged = VerifierWorker().judge([(TASK, STATE, RIGHT), (TASK, STATE, "no"), (TASK, STATE, RIGHT)])
    assert [verdict.status for verdict, _ in judged] == [Status.CORRECT, Status.ILLEGAL_FORMULA, Status.CORRECT]
    assert judged[0][1].is_over


def test_an_answer_that_breaks_the_verifier_spoils_no_other(monkeypatch):
    class Fragile:
        def verify(self, task, state, answer):
            if answer == "bad":
                raise RecursionError("too deep")
            return GAME.verify(task, state, answer)

    monkeypatch.setattr(envs, "make", lambda name, **options: Fragile())
    judged = VerifierWorker().judge([(TASK, STATE, "bad"), (TASK, STATE, RIGHT)])
    assert [verdict.status for verdict, _ in judged] == [Status.CRASHED, Status.CORRECT]
    assert judged[0][0].feedback == "RecursionError: too deep"
    assert judged[0][1] == STATE


@pytest.mark.parametrize("reward", [math.inf, -math.inf, math.nan, 1e39])
def test_a_reward_that_float32_does_not_hold_is_a_failure_of_the_verifier_and_never_reaches_a_step(reward, monkeypatch):
    class Overflowing:
        def verify(self, task, state, answer):
            verdict, after = GAME.verify(task, state, answer)
            return replace(verdict, reward=reward), after

    monkeypatch.setattr(envs, "make", lambda name, **options: Overflowing())
    ((verdict, after),) = VerifierWorker().judge([(TASK, STATE, RIGHT)])
    assert (verdict.status, verdict.reward, after) == (Status.CRASHED, 0.0, STATE)
    assert f"{reward:g}" in verdict.feedback


def test_an_environment_nobody_knows_is_a_failure_of_the_verifier():
    unknown = Task(environment="chess", options={}, id="1", data={})
    ((verdict, _),) = VerifierWorker().judge([(unknown, State(attempts_left=1), "e4")])
    assert verdict.status is Status.CRASHED


async def test_answers_that_arrive_together_travel_together():
    judge = Judging()
    assert await verdicts(VerifierPool([judge]), [RIGHT] * 20) == [Status.CORRECT] * 20
    assert [len(batch) for batch in judge.batches] == [20]


async def test_while_one_call_is_out_the_next_batch_grows():
    judge = Judging()
    pool = VerifierPool([judge])
    first = asyncio.create_task(pool.verify(TASK, STATE, RIGHT))
    while not judge.batches:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(pool.verify(TASK, STATE, RIGHT)) for _ in range(BATCH + 5)]
    await asyncio.gather(first, *rest)
    assert [len(batch) for batch in judge.batches] == [1, BATCH, 5]
    await pool.close()


async def test_work_is_shared_among_verifiers():
    judges = [Judging(), Judging()]
    pool = VerifierPool(judges)
    for _ in range(10):
        await pool.verify(TASK, STATE, RIGHT)
    assert [len(judge.batches) for judge in judges] == [5, 5]
    await pool.close()


async def test_only_the_answer_that_kills_verifiers_goes_without_a_verdict():
    judges = [Judging(), Judging(), Judging()]
    pool = VerifierPool(judges)
    statuses = await verdicts(pool, [*[RIGHT] * 9, "kill", *["no"] * 9])
    assert statuses == [*[Status.CORRECT] * 9, Status.CRASHED, *[Status.ILLEGAL_FORMULA] * 9]
    assert pool.stats.failures == 1


async def test_an_answer_that_hangs_is_asked_elsewhere_and_then_timed_out():
    judges = [Judging(), Judging()]
    pool = VerifierPool(judges, deadline_s=0.05)
    assert await verdicts(pool, ["hang", RIGHT]) == [Status.TIMEOUT, Status.CORRECT]
    alone = [number for number, judge in enumerate(judges) for batch in judge.batches if batch == ["hang"]]
    assert set(alone) == {0, 1}
    assert pool.stats.timeouts >= 3


async def test_a_retry_goes_to_another_verifier():
    broken, sound = Gone(down=True), Judging()
    pool = VerifierPool([broken, sound])
    assert await verdicts(pool, [RIGHT] * 4) == [Status.CORRECT] * 4
    assert len(broken.batches) <= 1


async def test_when_all_are_down_for_a_moment_answers_wait():
    judges = [Judging(down=True), Judging(down=True)]
    assert await verdicts(VerifierPool(judges), [RIGHT] * 5) == [Status.CORRECT] * 5
    assert all(judge.revivals for judge in judges)


async def test_when_all_stay_down_every_answer_hears_it():
    pool = VerifierPool([Gone(down=True), Gone(down=True)], recovery_s=0.1)
    judged = await asyncio.wait_for(asyncio.gather(*(pool.verify(TASK, STATE, RIGHT) for _ in range(3))), 10)
    assert {verdict.status for verdict, _ in judged} == {Status.CRASHED}
    assert "no verifier came back within 0.1 s" in {verdict.feedback for verdict, _ in judged}
    await pool.close()


async def test_a_dropped_answer_is_not_asked():
    judge = Judging()
    pool = VerifierPool([judge])
    dropped = asyncio.create_task(pool.verify(TASK, STATE, "dropped"))
    await asyncio.sleep(0)
    dropped.cancel()
    await pool.verify(TASK, STATE, RIGHT)
    assert Counter(answer for batch in judge.batches for answer in batch) == {RIGHT: 1}
    await pool.close()


@pytest.mark.parametrize("broken", [TypeError("cannot pickle"), ValueError("odd")])
async def test_an_error_of_the_call_itself_is_a_failure_of_the_verifier_too(broken):
    class Raising(Judging):
        async def judge(self, questions):
            raise broken

    assert await verdicts(VerifierPool([Raising(), Raising()]), [RIGHT]) == [Status.CRASHED]
