import asyncio
import dataclasses
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import pytest_asyncio
import torch

import envs
from cluster.config import EngineConfig
from cluster.engine.channel import host_store, open_end
from cluster.engine.node_files import BaseMissing, NodeFiles
from cluster.engine.reply import EngineDead, History, WeightsRefused
from cluster.rollout import Decoding, play, turn_seeds
from cluster.weight_broadcaster import Broadcaster
from cluster.weight_delta import delta_between
from cluster.weights import Channel, WeightBroadcast, pack_weights, tensors_of
from envs.base import ConfigError, DataError
from tests.cluster.players import here
from trainers.chat import ChatFormat

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

CONFIG = EngineConfig(dtype="float32", kv_cache_gib=0.25, max_model_len=1024)
PROMPT = [5 + i % 90 for i in range(300)]  # longer than two blocks of the prefix cache


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    from trainers.nano.model import create

    directory = tmp_path_factory.mktemp("models")
    return create(directory / "a", seed=1), create(directory / "b", seed=2)


@pytest.fixture(scope="module", autouse=True)
def _files_of_their_own(tmp_path_factory):
    """Other engines of this machine would recycle the files that these tests count on."""
    directory = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cluster.engine.node_files._shared_memory", lambda: directory)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(models):
    from cluster.engine import Engine

    engine = await Engine.start(models[0], CONFIG, weight_version=7)
    yield engine
    await engine.close()


def reference(directory: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def parcel(directory: Path, version: int):
    return pack_weights(reference(directory).state_dict().items(), version=version)


@torch.no_grad()
def logp_of(model, ids: list[int], start: int, temperature: float = 1.0) -> torch.Tensor:
    """Log-probs [len(ids) - start] of ids[start:] by transformers."""
    logits = model(torch.tensor([ids])).logits[0, start - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(ids[start:])[:, None])[:, 0]


@torch.no_grad()
def greedy_ids(model, ids: list[int], count: int) -> list[int]:
    out = model.generate(torch.tensor([ids]), max_new_tokens=count, min_new_tokens=count, do_sample=False)
    return out[0, len(ids) :].tolist()


def greedy(engine, ids=PROMPT, count: int = 24):
    return engine.generate(ids, seed=0, temperature=0.0, max_tokens=count, stop_ids=[])


def sampled(engine, ids=PROMPT, count: int = 24, seed: int = 3, temperature: float = 1.0):
    return engine.generate(ids, seed=seed, temperature=temperature, max_tokens=count, stop_ids=[])


async def test_the_first_3_turns_at_10_verification_iterations_are_those_at_3(engine, models):
    chat = ChatFormat.load(models[0])
    decoding = Decoding(max_tokens=16, max_model_len=CONFIG.max_model_len)
    games = [envs.make("general_points", viter=viter) for viter in (3, 10)]

    def episode(game, index: int):
        task, seeds = game.sample(0, "train", 0, index), turn_seeds(7, 0, index)
        return play(task, game, chat, engine.generate, here(game), decoding=decoding, seeds=seeds)

    episodes = await asyncio.gather(*(episode(game, index) for index in range(8) for game in games))
    for few, many in zip(episodes[::2], episodes[1::2], strict=True):
        assert len(few.turns) < len(many.turns)
        (short,), (long,) = few.segments, many.segments
        assert short.token_ids[: short.turns[-1].stop].tolist() == long.token_ids[: short.turns[-1].stop].tolist()


async def restore(engine, models) -> None:
    await engine.update_weights(parcel(models[0], 7))


async def test_greedy_tokens_and_log_probs_are_those_of_transformers(engine, models):
    model = reference(models[0])
    reply = await greedy(engine)
    assert reply.token_ids == greedy_ids(model, PROMPT, 24)
    assert reply.finish_reason == "length"
    assert reply.weight_versions == [7] * 24
    assert torch.allclose(torch.tensor(reply.logp), logp_of(model, PROMPT + reply.token_ids, len(PROMPT)), atol=2e-4)


async def test_log_probs_are_those_of_the_distribution_at_the_temperature(engine, models):
    reply = await sampled(engine, temperature=0.6)
    expected = logp_of(reference(models[0]), PROMPT + reply.token_ids, len(PROMPT), temperature=0.6)
    assert torch.allclose(torch.tensor(reply.logp), expected, atol=3e-4)


async def test_a_seed_draws_the_same_tokens_alone_and_in_company(engine):
    alone = await sampled(engine, seed=11)
    company = await asyncio.gather(
        *(sampled(engine, PROMPT[i:], seed=10 + i) for i in range(20)), sampled(engine, seed=11)
    )
    assert company[-1].token_ids == alone.token_ids
    assert len({tuple(reply.token_ids) for reply in company[:-1]}) > 15


async def test_only_the_named_tokens_stop_a_reply_and_the_stop_token_is_its_last(engine):
    free = await sampled(engine, seed=5)
    stop = free.token_ids[9]
    place = free.token_ids.index(stop)
    reply = await engine.generate(PROMPT, seed=5, temperature=1.0, max_tokens=24, stop_ids=[stop])
    assert reply.token_ids == free.token_ids[: place + 1]
    assert (reply.finish_reason, len(reply.logp)) == ("stop", place + 1)


async def test_a_repeated_history_comes_from_the_cache(engine):
    ids = [3 + i % 70 for i in range(400)]
    await greedy(engine, ids, 1)
    reply = await greedy(engine, ids, 1)
    assert reply.prompt_tokens == 400
    assert 256 <= reply.cached_tokens < 400


async def test_scores_are_log_probs_of_whole_sequences_at_temperature_one(engine, models):
    model, sequences = reference(models[0]), [PROMPT[:50], PROMPT[:200], PROMPT[7:9]]
    for ids, logp in zip(sequences, await engine.score([History(ids) for ids in sequences]), strict=True):
        assert len(logp) == len(ids) - 1
        assert torch.allclose(torch.tensor(logp), logp_of(model, ids, 1), atol=3e-4)


async def test_an_update_changes_every_answer_and_leaves_nothing_of_the_old_in_the_cache(engine, models):
    new = parcel(models[1], 8)
    await greedy(engine)
    await engine.update_weights(new)
    model = reference(models[1])
    reply = await greedy(engine)
    assert reply.cached_tokens == 0
    assert reply.token_ids == greedy_ids(model, PROMPT, 24)
    assert torch.allclose(torch.tensor(reply.logp), logp_of(model, PROMPT + reply.token_ids, len(PROMPT)), atol=2e-4)
    assert (engine.weight_version, engine.weight_digest) == (8, new.digest)
    assert reply.weight_versions == [8] * 24
    await restore(engine, models)


async def test_requests_in_flight_go_on_with_the_new_weights_over_a_history_computed_anew(engine, models):
    new = parcel(models[1], 8)
    tasks = [asyncio.create_task(sampled(engine, PROMPT[i:], 600, seed=i)) for i in range(8)]
    states = engine.llm.output_processor.request_states
    await until(lambda: len(states) == 8 and all(s.detokenizer.num_output_tokens() > 20 for s in states.values()))
    await engine.update_weights(new)
    replies = await asyncio.wait_for(asyncio.gather(*tasks), 120)
    old, later = reference(models[0]), reference(models[1])
    for i, reply in enumerate(replies):
        ids, start = PROMPT[i:] + reply.token_ids, len(PROMPT) - i
        switch = reply.weight_versions.index(8)
        assert reply.weight_versions == [7] * switch + [8] * (600 - switch)
        assert 20 < switch < 600
        logp = torch.tensor(reply.logp)
        assert torch.allclose(logp[:switch], logp_of(old, ids, start)[:switch], atol=5e-4)
        assert torch.allclose(logp[switch:], logp_of(later, ids, start)[switch:], atol=5e-4)
    await restore(engine, models)


async def test_weights_that_do_not_match_their_digest_are_refused_and_nothing_is_sampled(engine, models):
    good = parcel(models[1], 8)
    waiting = asyncio.create_task(sampled(engine, count=700))
    await asyncio.sleep(0.05)
    with pytest.raises(WeightsRefused, match=r"weight version 8 was refused: .*digest"):
        await engine.update_weights(dataclasses.replace(good, digest="0" * 64))
    for call in (greedy(engine), engine.score([History(PROMPT)])):
        with pytest.raises(WeightsRefused, match="digest"):
            await call
    assert engine.weight_version == 7
    assert not (await asyncio.wait([waiting], timeout=0.5))[0]
    await engine.update_weights(good)
    assert (await greedy(engine)).token_ids == greedy_ids(reference(models[1]), PROMPT, 24)
    assert (await asyncio.wait_for(waiting, 60)).weight_versions[-1] == 8
    await restore(engine, models)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
async def test_a_transfer_damaged_on_this_node_is_refused_and_the_next_try_succeeds(engine, models, damage):
    good = parcel(models[1], 9)
    with NodeFiles().holding(good) as path, path.open("r+b", buffering=0) as file:
        if damage == "cut":
            file.truncate(path.stat().st_size // 2)
        else:
            file.seek(5000)
            file.write(b"\xff\xfe")
        with pytest.raises(WeightsRefused, match=r"hold|digest"):
            await engine.update_weights(good)
    await engine.update_weights(good)
    assert (await greedy(engine)).token_ids == greedy_ids(reference(models[1]), PROMPT, 24)
    await restore(engine, models)


async def test_a_delta_on_the_weights_of_this_node_is_taken_and_on_damaged_ones_refused(engine, models):
    base, weights = parcel(models[0], 7), reference(models[1]).state_dict()
    changed = {**reference(models[0]).state_dict(), "lm_head.weight": weights["lm_head.weight"]}
    new = pack_weights(changed.items(), version=8)
    delta = delta_between(base, new, share=2.0)
    await engine.update_weights(base)
    assert engine.has_parcel(base.digest)
    with NodeFiles().holding(base) as path, path.open("r+b", buffering=0) as file:
        file.write(b"\xff\xfe")
    with pytest.raises(WeightsRefused, match="digest"):
        await engine.update_weights(delta)
    with pytest.raises(BaseMissing):
        await engine.update_weights(delta)
    await engine.update_weights(base)
    await engine.update_weights(delta)
    assert (engine.weight_version, engine.weight_digest) == (8, new.digest)
    mixed = reference(models[0])
    mixed.load_state_dict(changed)
    assert (await greedy(engine)).token_ids == greedy_ids(mixed, PROMPT, 24)
    await restore(engine, models)


@pytest.fixture
def broadcaster():
    failures: list[str] = []
    sender = Broadcaster("127.0.0.1", torch.device("cpu"), ranks_per_engine=1, on_failure=failures.append)
    yield sender, failures
    sender.close()


async def test_weights_that_are_broadcast_are_taken_version_after_version_also_with_requests_in_flight(
    engine, models, broadcaster
):
    sender, failures = broadcaster
    waiting = asyncio.create_task(sampled(engine, count=700))
    await asyncio.sleep(0.05)
    for version, model in ((8, models[1]), (9, models[0]), (10, models[1])):
        new = parcel(model, version)
        with sender.sending(new, ["rollout-0"]) as broadcast:
            await engine.take_broadcast(broadcast, "rollout-0")
        assert (engine.weight_version, engine.weight_digest) == (version, new.digest)
        assert (await greedy(engine)).token_ids == greedy_ids(reference(model), PROMPT, 24)
    assert (await asyncio.wait_for(waiting, 60)).weight_versions[-1] > 7
    assert failures == []
    await restore(engine, models)


@pytest.mark.parametrize("fault", ["nobody sends", "cut off", "other bytes"])
async def test_a_broadcast_that_fails_leaves_nothing_to_sample_from_until_a_parcel_is_in(engine, models, fault: str):
    new = parcel(models[1], 8)
    store = host_store("127.0.0.1", 20.0)
    channel = Channel(
        name=fault, address="127.0.0.1", port=store.port, size=2, ranks={"me": 1},
        deadline_s=1.0 if fault == "nobody sends" else 20.0,
    )  # fmt: skip
    broadcast = WeightBroadcast(version=8, digest=new.digest, index=new.index, channel=channel)

    def send() -> None:
        end = open_end(channel, 0, torch.device("cpu"), hosted=store)
        tensors = [(name, tensor.clone()) for name, tensor in tensors_of(new)]
        if fault == "other bytes":
            tensors[3][1].view(-1)[0] += 1
        end.send(tensors[: len(tensors) // 2] if fault == "cut off" else tensors)
        end.close()

    waiting = asyncio.create_task(sampled(engine, count=700))
    await asyncio.sleep(0.05)
    sending = asyncio.create_task(asyncio.to_thread(send)) if fault != "nobody sends" else None
    words = {"nobody sends": "of 2 members 0 did not come", "cut off": "broke off", "other bytes": "digest"}
    with pytest.raises(WeightsRefused, match=words[fault]):
        await engine.take_broadcast(broadcast, "me")
    if sending:
        await sending
    with pytest.raises(WeightsRefused, match=words[fault]):
        await greedy(engine)
    assert engine.weight_version == 7
    assert not (await asyncio.wait([waiting], timeout=0.5))[0]
    await engine.update_weights(new)
    assert (await greedy(engine)).token_ids == greedy_ids(reference(models[1]), PROMPT, 24)
    assert (await asyncio.wait_for(waiting, 60)).weight_versions[-1] == 8
    await restore(engine, models)


async def test_weights_of_another_model_are_refused_by_the_first_tensor_that_differs(engine, models):
    weights = reference(models[1]).state_dict()
    del weights["model.norm.weight"]
    with pytest.raises(WeightsRefused, match=r"none for model.norm.weight|model.norm.weight none"):
        await engine.update_weights(pack_weights(weights.items(), version=8))
    await restore(engine, models)


async def test_weights_in_bfloat16_are_taken_by_an_engine_in_float32(engine, models):
    weights = {name: tensor.bfloat16() for name, tensor in reference(models[1]).state_dict().items()}
    await engine.update_weights(pack_weights(weights.items(), version=8))
    rounded = reference(models[1])
    rounded.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    assert (await greedy(engine)).token_ids == greedy_ids(rounded, PROMPT, 24)
    await restore(engine, models)


async def test_a_swap_takes_the_weights_of_another_checkpoint(engine, models):
    await engine.swap(models[1], 12)
    reply = await greedy(engine)
    assert reply.token_ids == greedy_ids(reference(models[1]), PROMPT, 24)
    assert reply.weight_versions[-1] == 12
    await engine.swap(models[0], 7)


async def test_a_swap_to_another_architecture_is_refused_and_the_engine_goes_on(engine, tmp_path):
    from trainers.nano.model import NanoSize, create

    with pytest.raises(DataError, match="start an engine of its own"):
        await engine.swap(create(tmp_path / "wider", size=NanoSize(hidden=64)), 13)
    assert (await greedy(engine)).weight_version == 7


async def test_an_answer_that_does_not_fit_is_refused_in_one_sentence(engine):
    with pytest.raises(DataError, match="max_model_len=1024"):
        await greedy(engine, count=1000)


async def test_an_aborted_request_returns_what_there_is(engine):
    task = asyncio.create_task(
        engine.generate(PROMPT, seed=1, temperature=1.0, max_tokens=700, stop_ids=[], request_id="slow one")
    )
    await asyncio.sleep(0.2)
    await engine.abort("slow one")
    reply = await asyncio.wait_for(task, 10)
    assert reply.finish_reason == "abort"
    assert len(reply.token_ids) == len(reply.logp) < 700


async def test_a_cancelled_call_ends_the_work(engine):
    task = asyncio.create_task(sampled(engine, count=700))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.llm.get_num_unfinished_requests() == 0


async def test_a_directory_that_is_no_model_is_refused_before_vllm_looks(models, tmp_path):
    from cluster.engine.settings import check_model

    def broken(name: str) -> Path:
        return Path(shutil.copytree(models[0], tmp_path / name))

    def configured(name: str, **changes) -> Path:
        directory = broken(name)
        config = json.loads((directory / "config.json").read_text()) | changes
        (directory / "config.json").write_text(json.dumps(config))
        return directory

    assert "lm_head.weight" in check_model(models[0])
    (broken("unconfigured") / "config.json").unlink()
    (broken("weightless") / "model.safetensors").unlink()
    cut = broken("cut") / "model.safetensors"
    os.truncate(cut, cut.stat().st_size // 2)
    cases = {
        tmp_path / "nowhere": "no such model directory",
        tmp_path / "unconfigured": "config.json is missing",
        tmp_path / "weightless": r"holds no \*.safetensors",
        tmp_path / "cut": "not a whole safetensors file",
        configured("unknown", architectures=["NoSuchForCausalLM"]): "NoSuchForCausalLM",
        configured("own-code", auto_map={"AutoModel": "x.Y"}): "auto_map",
        configured("tied", tie_word_embeddings=True): "tie_word_embeddings",
    }
    for directory, words in cases.items():
        with pytest.raises(DataError, match=words):
            check_model(directory)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_model_len": 100_000, "kv_cache_gib": 8.0}, "max_model_len"),
        ({"max_model_len": 1024, "kv_cache_gib": 0.001}, "kv_cache_gib=0.001"),
    ],
)
async def test_settings_that_do_not_fit_the_model_are_one_sentence(models, settings, words):
    from cluster.engine import Engine

    with pytest.raises(ConfigError, match=words):
        await Engine.start(models[0], EngineConfig(**settings))


LONE_ENGINE = """
import asyncio, sys
from cluster.config import EngineConfig
from cluster.engine import Engine
async def main():
    engine = await Engine.start(sys.argv[1], EngineConfig(kv_cache_gib=0.1))
    print(engine.process_id, flush=True)
    await asyncio.sleep(600)
if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_the_engine_ends_with_the_process_that_started_it(models, tmp_path):
    script = tmp_path / "lone_engine.py"
    script.write_text(LONE_ENGINE)
    owner = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        str(models[0]),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert owner.stdout is not None
    pid = int(await asyncio.wait_for(owner.stdout.readline(), 120))
    assert is_alive(pid)
    owner.kill()
    await owner.wait()
    await until(lambda: not is_alive(pid), 15)


async def test_closing_an_engine_ends_the_requests_in_flight(models):
    from cluster.engine import Engine

    lone = await Engine.start(models[0], CONFIG)
    process, task = lone.process_id, asyncio.create_task(sampled(lone, count=700))
    await asyncio.sleep(0.2)
    await lone.close()
    with pytest.raises(EngineDead):
        await asyncio.wait_for(task, 10)
    assert not is_alive(process)


async def test_a_dead_engine_says_so_to_everyone(engine):
    """The last test of this engine."""
    task = asyncio.create_task(sampled(engine, count=700))
    await asyncio.sleep(0.2)
    os.kill(engine.process_id, signal.SIGKILL)
    with pytest.raises(EngineDead):
        await asyncio.wait_for(task, 30)
    with pytest.raises(EngineDead):
        await engine.check_health()
    with pytest.raises(EngineDead):
        await greedy(engine)


async def until(condition, deadline_s: float = 60) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # what is awaited lies in another process
            await asyncio.sleep(0.005)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
