"""A replica without vLLM: leases, swaps and play, with an engine that is wrong once and then right."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import envs
from cluster.engine.reply import Reply
from cluster.verifiers import ATTEMPTS, JudgeDied, Judgement, Question, VerifierPool, VerifierWorker
from envs import suites
from envs.base import ConfigError, DataError
from services.config import ServiceConfig
from services.engines.episodes import EpisodeEvent, EpisodeOrder
from services.engines.replica import EngineReplica, Head
from services.evaluations.orders import EvaluationOrder, PlayOrder
from trainers.chat import ChatFormat
from trainers.checkpoints import Checkpoint, CheckpointInfo, Checkpoints
from trainers.nano import tokenizer

SUITE = "general_points/id"


def commit(store: Path, step: int, config: str = '{"architectures": ["A"], "dtype": "float32"}') -> Checkpoint:
    def write(directory: Path) -> None:
        model = directory / "model"
        tokenizer.build(envs.make("general_points").phrases).save_pretrained(str(model))
        (model / "config.json").write_text(config)
        (model / "model.safetensors").write_text(f"weights {step}")

    info = CheckpointInfo(parents=(), metrics={}, compute={}, config={}, world_size=1)
    return Checkpoints(store, "nano").commit(step, write, info)


class Expert:
    """An engine that knows the oracle: its first answer to a task is nonsense, every later one is right."""

    def __init__(self, directory: Path, version: int):
        self.chat = ChatFormat.load(directory)
        self.version = version
        self.events: list[str] = [f"start {version}"]
        self.in_flight = self.most_in_flight = 0
        game = envs.make("general_points")
        self.answers = {
            tuple(self.chat.prompt_ids(game.prompt(task, game.start(task)))): game.expert(task, game.start(task))
            for task in suites.load(SUITE, 8).tasks
        }

    async def generate(self, token_ids: Sequence[int], **_: Any) -> Reply:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0.001)
        self.in_flight -= 1
        first = tuple(token_ids) in self.answers
        answer = next(a for p, a in self.answers.items() if tuple(token_ids[: len(p)]) == p)
        ids = self.chat.reply_ids("no idea" if first else answer)
        return Reply(
            token_ids=ids, logp=[0.0] * len(ids), weight_versions=[self.version] * len(ids), finish_reason="stop",
            prompt_tokens=len(token_ids), cached_tokens=1,
        )  # fmt: skip

    async def swap(self, model_dir: Path, version: int) -> None:
        assert self.in_flight == 0
        self.events.append(f"swap {(model_dir / 'model.safetensors').read_text()}")
        self.version = version

    async def check_health(self) -> None: ...

    async def close(self) -> None:
        self.events.append("close")


class Repeats:
    """Completions that wait for `go`, then give the model's name back."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()

    async def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        await self.go.wait()
        if body.get("bad"):
            return {"error": {"code": 400, "message": "bad"}}
        return {"model": body["model"]}


@pytest.fixture
def engines() -> list[Expert]:
    return []


@pytest.fixture
def completions() -> Repeats:
    return Repeats()


class Judge:
    """A verifier as a process would be; `trouble` says what becomes of a call."""

    def __init__(self) -> None:
        self.worker = VerifierWorker()
        self.trouble: Callable[[], Awaitable[None]] | None = None

    async def judge(self, questions: Sequence[Question]) -> list[Judgement]:
        if self.trouble:
            await self.trouble()
        return self.worker.judge(questions)

    async def revive(self) -> None: ...


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def replica(tmp_path: Path, engines: list[Expert], completions: Repeats, judge: Judge) -> EngineReplica:
    async def start(directory: Path, version: int):
        engines.append(Expert(directory, version))
        return engines[-1], completions

    config = ServiceConfig(store=str(tmp_path), episodes_in_flight=3, patience_s=0.0)
    return EngineReplica(config, start, VerifierPool([judge], deadline_s=0.2))


async def ask(replica: EngineReplica, checkpoint: Checkpoint, deadline_s: float = 60.0, **body: Any) -> Head:
    return await replica.whole("chat", {"model": checkpoint.name, **body}, checkpoint, deadline_s)


@pytest.mark.parametrize("config", ['{"auto_map": {"AutoModel": "evil.Model"}}', "{", "[]"])
async def test_a_hostile_model_is_refused_before_an_engine_sees_it(
    replica: EngineReplica, engines: list[Expert], tmp_path: Path, config: str
):
    with pytest.raises(DataError, match=r"config\.json"):
        await ask(replica, commit(tmp_path, 1, config))
    assert engines == []
    assert (await ask(replica, commit(tmp_path, 2))).status == 200


async def test_an_episode_hears_its_verdict_and_revises(replica: EngineReplica, engines: list[Expert], tmp_path: Path):
    checkpoint = commit(tmp_path, 1)
    order = EvaluationOrder(checkpoint=checkpoint.name, n=8, viter=3)
    batches = replica.play(PlayOrder(checkpoint=checkpoint, suite=SUITE, indices=(0, 1, 2, 3, 7), order=order))
    items = [item async for batch in batches for item in batch]
    assert sorted(item.index for item in items) == [0, 1, 2, 3, 7]
    for item in items:
        assert [turn.status for turn in item.turns] == ["illegal_formula", "correct"]
        assert (item.success, item.digest) == (True, checkpoint.digest)
        assert [turn.recognised for turn in item.turns] == [False, None]
        assert item.cached_tokens == 2
        assert "Cards:" in item.prompt
    assert engines[0].most_in_flight == 3


async def test_the_same_architecture_is_swapped_and_another_started_anew(
    replica: EngineReplica, engines: list[Expert], tmp_path: Path
):
    first, second = commit(tmp_path, 1), commit(tmp_path, 2, '{"architectures": ["A"], "dtype": "bfloat16"}')
    other = commit(tmp_path, 3, '{"architectures": ["B"]}')
    for checkpoint in (first, second, second, other):
        assert (await ask(replica, checkpoint)).body == {"model": checkpoint.name}
    assert engines[0].events == ["start 1", "swap weights 2", "close"]
    assert engines[1].events == ["start 3"]
    assert replica.state().swaps == 3
    await replica.close()
    assert engines[1].events[-1] == "close"


async def test_another_checkpoint_waits_until_the_running_request_has_ended(
    replica: EngineReplica, engines: list[Expert], completions: Repeats, tmp_path: Path
):
    first, second = commit(tmp_path, 1), commit(tmp_path, 2)
    await replica.warm(first)
    completions.go.clear()
    running = asyncio.create_task(ask(replica, first))
    await asyncio.sleep(0.01)
    waiting = asyncio.create_task(ask(replica, second))
    await asyncio.sleep(0.05)
    assert engines[0].events == ["start 1"]
    completions.go.set()
    assert (await running).body == {"model": first.name}
    assert (await waiting).body == {"model": second.name}
    assert engines[0].events == ["start 1", "swap weights 2"]


async def test_the_deadline_counts_the_waiting_too(replica: EngineReplica, completions: Repeats, tmp_path: Path):
    first, second = commit(tmp_path, 1), commit(tmp_path, 2)
    await replica.warm(first)
    completions.go.clear()
    running = asyncio.create_task(ask(replica, first))
    await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        await ask(replica, second, deadline_s=0.05)
    completions.go.set()
    assert (await running).status == 200
    assert replica.state().users == 0


async def test_a_refusal_keeps_its_status(replica: EngineReplica, tmp_path: Path):
    assert (await ask(replica, commit(tmp_path, 1), bad=True)).status == 400


async def test_stopping_to_listen_ends_the_episodes(replica: EngineReplica, engines: list[Expert], tmp_path: Path):
    checkpoint = commit(tmp_path, 1)
    order = EvaluationOrder(checkpoint=checkpoint.name, n=8, viter=3)
    batches = replica.play(PlayOrder(checkpoint=checkpoint, suite=SUITE, indices=tuple(range(8)), order=order))
    await anext(batches)
    await batches.aclose()
    assert replica.state().users == 0
    assert engines[0].in_flight <= 3


async def hang() -> None:
    await asyncio.sleep(60)


async def die() -> None:
    raise JudgeDied("it is gone")


@pytest.mark.parametrize(("trouble", "status"), [(hang, "timeout"), (die, "crashed")])
async def test_a_verifier_that_fails_is_a_failed_item_and_never_a_reward(
    replica: EngineReplica, engines: list[Expert], judge: Judge, tmp_path: Path, trouble, status: str
):
    checkpoint = commit(tmp_path, 1)
    judge.trouble = trouble
    order = EvaluationOrder(checkpoint=checkpoint.name, n=8, viter=3)
    batches = replica.play(PlayOrder(checkpoint=checkpoint, suite=SUITE, indices=(0,), order=order))
    (item,) = [item async for batch in batches for item in batch]
    assert item.error is not None
    assert item.error.startswith(f"{status}: ")
    assert f"{ATTEMPTS} times" in item.error
    assert item.turns == []
    judge.trouble = None
    batches = replica.play(PlayOrder(checkpoint=checkpoint, suite=SUITE, indices=(1,), order=order))
    assert [item.success async for batch in batches for item in batch] == [True]
    assert len(engines) == 1


def hand(index: int) -> dict[str, Any]:
    return dict(suites.load(SUITE, 8).tasks[index].data)


def an_episode(checkpoint: Checkpoint, **changes: Any) -> EpisodeOrder:
    order = {"checkpoint": checkpoint.name, "environment": "general_points", "data": hand(2), "viter": 3}
    return EpisodeOrder(**{**order, **changes})


async def told(replica: EngineReplica, checkpoint: Checkpoint, **changes: Any) -> list[EpisodeEvent]:
    events = replica.episode(an_episode(checkpoint, **changes), checkpoint, 10.0)
    return [event async for event in events]


async def test_an_episode_is_told_turn_by_turn(replica: EngineReplica, tmp_path: Path):
    checkpoint = commit(tmp_path, 1)
    task, first, second, end = await told(replica, checkpoint)
    assert [event.event for event in (task, first, second, end)] == ["task", "turn", "turn", "end"]
    assert task.data.data == hand(2)
    assert task.data.options["viter"] == 3
    assert "Cards:" in task.data.prompt
    assert (first.data.status, first.data.attempts_left, first.data.answer) == ("illegal_formula", 2, "no idea")
    assert (second.data.turn, second.data.status, second.data.next) == (2, "correct", None)
    assert (end.data.success, end.data.turns, end.data.digest) == (True, 2, checkpoint.digest)
    assert end.data.reward == first.data.reward + second.data.reward
    assert replica.state().users == 0


async def test_each_turn_is_told_before_the_next_is_played(
    replica: EngineReplica, engines: list[Expert], tmp_path: Path
):
    checkpoint = commit(tmp_path, 1)
    await replica.warm(checkpoint)
    go = asyncio.Event()
    generate = engines[0].generate
    calls = []

    async def gated(token_ids: Sequence[int], **how: Any) -> Reply:
        calls.append(len(token_ids))
        if len(calls) == 2:
            await go.wait()
        return await generate(token_ids, **how)

    engines[0].generate = gated
    events = replica.episode(an_episode(checkpoint), checkpoint, 10.0)
    assert [(await anext(events)).event for _ in range(2)] == ["task", "turn"]
    go.set()
    assert [event.event async for event in events] == ["turn", "end"]


async def test_an_episode_whose_verifier_fails_ends_without_a_reward(
    replica: EngineReplica, judge: Judge, tmp_path: Path
):
    judge.trouble = die
    _, end = await told(replica, commit(tmp_path, 1))
    assert (end.data.success, end.data.reward) == (None, None)
    assert "the verifier failed (crashed)" in end.data.error


async def test_nobody_listening_ends_an_episode_and_frees_the_engine(
    replica: EngineReplica, engines: list[Expert], judge: Judge, tmp_path: Path
):
    checkpoint = commit(tmp_path, 1)
    judge.trouble = hang
    events = replica.episode(an_episode(checkpoint), checkpoint, 10.0)
    await anext(events)
    listening = asyncio.create_task(anext(events))
    while replica.state().users == 0:
        await asyncio.sleep(0.001)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert replica.state().users == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"cards": ["C1"]}}, "state: cards"),
        ({"options": {"colour": 1}}, "colour"),
        ({"environment": "chess"}, "unknown"),
        ({"environment": None, "data": None}, "does not say what it trained on"),
    ],
)
async def test_an_episode_of_no_task_is_refused_before_it_begins(
    replica: EngineReplica, tmp_path: Path, changes: dict, words: str
):
    with pytest.raises(ConfigError, match=words):
        await told(replica, commit(tmp_path, 1), **changes)


async def test_a_dealt_episode_is_the_task_of_its_seed(replica: EngineReplica, tmp_path: Path):
    checkpoint = commit(tmp_path, 1)
    events = [replica.episode(an_episode(checkpoint, data=None, seed=s), checkpoint, 10.0) for s in (1, 1, 2)]
    one, again, other = [(await anext(e)).data.data for e in events]
    assert one == again != other
