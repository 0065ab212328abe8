import asyncio
import base64
import io

import pytest
import pytest_asyncio
import torch
from PIL import Image

from cluster.config import EngineConfig
from cluster.engine.reply import History
from cluster.weights import pack_weights
from envs.base import DataError
from tests.trainers import seeing
from trainers.chat import ChatFormat
from trainers.config import LearnerConfig, ModelConfig, ScheduleConfig
from trainers.corpus import plain_segment
from trainers.learner import Learner
from trainers.packing import known, pack_segments

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
CONFIG = EngineConfig(dtype="float32", kv_cache_gib=0.1, max_model_len=512, max_num_seqs=32)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return [seeing.model(tmp_path_factory.mktemp(f"seeing-{seed}"), seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def chat(models):
    return ChatFormat.load(models[0])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(models):
    from cluster.engine import Engine

    started = await Engine.start(models[0], CONFIG)
    yield started
    await started.close()


def learner(model) -> Learner:
    config = LearnerConfig(row_tokens=512, rows_per_pass=2)
    return Learner.start(model, ModelConfig(dtype="float32"), config, ScheduleConfig(), total_updates=1)


async def answered(engine, transcript, chat, seed, tokens=12):
    """A reply of the engine as a segment that the learner can score."""
    reply = await engine.generate(
        transcript.token_ids, seed=seed, temperature=1.0, max_tokens=tokens, stop_ids=chat.stop_ids,
        pictures=transcript.pictures, banned_ids=chat.banned_ids,
    )  # fmt: skip
    sampled = [False] * len(transcript.token_ids) + [True] * len(reply.token_ids)
    return reply, plain_segment([*transcript.token_ids, *reply.token_ids], sampled, transcript.pictures)


def gap(model, replies, segments) -> float:
    """The largest difference between the engine's log-probs and the learner's, in nats."""
    scorer = learner(model)
    scores = [known(scorer.score(pack_segments([segment], row_tokens=512)).old_logp)[0] for segment in segments]
    ours = [value for logp, s in zip(scores, segments, strict=True) for value in logp[torch.tensor(s.sampled)].tolist()]
    theirs = [logp for reply in replies for logp in reply.logp]
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


async def test_learner_and_engine_agree_on_what_follows_one_image_or_several(engine, models, chat):
    openings = [seeing.opened(chat, *numbers) for numbers in ((0,), (1,), (2, 3), (4, 5, 6), ())]
    pairs = [await answered(engine, opening, chat, seed) for seed, opening in enumerate(openings)]
    replies, segments = zip(*pairs, strict=True)
    assert gap(models[0], replies, segments) < 2e-4


async def test_the_picture_matters_and_the_same_seed_on_the_same_picture_says_the_same(engine, chat):
    said = [(await answered(engine, seeing.opened(chat, number), chat, 7))[0] for number in (0, 0, 1)]
    assert said[0].token_ids == said[1].token_ids
    assert said[0].logp != said[2].logp


async def test_a_history_that_goes_on_with_another_image_is_read_as_it_was_written(engine, models, chat):
    """Reply, feedback with an image of its own, reply again: two images far apart in one segment."""
    transcript = seeing.opened(chat, 0)
    first, _ = await answered(engine, transcript, chat, 1)
    transcript.append_reply(first.token_ids, first.logp, first.weight_versions, first.finish_reason)
    peek = seeing.Peek()
    verdict, _ = peek.verify(None, peek.start(None), "off")
    transcript.append_verdict(verdict, peek.feedback(verdict), {"9": peek.image("9")})
    reply, segment = await answered(engine, transcript, chat, 2)
    assert len(segment.pictures) == 2
    assert gap(models[0], [reply], [segment]) < 2e-4


async def test_scores_of_whole_histories_agree_too(engine, models, chat):
    transcript = seeing.opened(chat, 3)
    ids = [*transcript.token_ids, *chat.encode("an answer")]
    [theirs] = await engine.score([History(ids, transcript.pictures)])
    whole = plain_segment(ids, [False] + [True] * (len(ids) - 1), transcript.pictures)
    ours = learner(models[0]).score(pack_segments([whole], row_tokens=512), as_sampled=False)
    assert torch.allclose(known(ours.old_logp)[0, 1:], torch.tensor(theirs), atol=2e-4)


async def test_new_weights_reach_the_tower_and_the_projector(engine, models, chat):
    """Another model's weights, by the names that the learner publishes."""
    other = learner(models[1])
    await engine.update_weights(pack_weights(other.weights(), version=5))
    reply, segment = await answered(engine, seeing.opened(chat, 0, 1), chat, 3)
    assert reply.weight_versions == [5] * len(reply.token_ids)
    assert gap(models[1], [reply], [segment]) < 2e-4
    await engine.swap(models[0], 0)


async def test_an_image_token_is_never_drawn(engine, chat):
    replies = await asyncio.gather(
        *(answered(engine, seeing.opened(chat, number), chat, number, tokens=64) for number in range(24))
    )
    drawn = {token for reply, _ in replies for token in reply.token_ids}
    assert len(drawn) > 100
    assert not drawn & set(chat.banned_ids)


async def test_pictures_that_do_not_belong_to_the_prompt_are_refused(engine, chat):
    transcript = seeing.opened(chat, 0)
    options = {"seed": 0, "temperature": 1.0, "max_tokens": 4, "stop_ids": ()}
    with pytest.raises(DataError, match="image 1 of 2: its 7 tokens do not stand in the prompt"):
        await engine.generate(transcript.token_ids, pictures=[seeing.picture(0), seeing.picture(1)], **options)
    with pytest.raises(DataError, match=r"a prompt of .* do not fit"):
        await engine.generate(transcript.token_ids, pictures=transcript.pictures, **options | {"max_tokens": 510})


async def test_an_image_over_openais_protocol_is_the_prompt_that_training_writes(engine, chat):
    """Two renderers of one chat: vLLM's, behind the HTTP service, and ours. Ids and answer must be the same."""
    from cluster.engine import OpenAi

    picture = io.BytesIO()
    Image.fromarray(seeing.picture(5)).save(picture, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "look"}]
    answer = await OpenAi(engine, max_tokens=64).chat(
        {"model": "any", "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 8,
         "return_token_ids": True}
    )  # fmt: skip
    transcript = seeing.opened(chat, 5)
    assert answer["prompt_token_ids"] == transcript.token_ids
    reply = await engine.generate(
        transcript.token_ids,
        seed=0,
        temperature=0.0,
        max_tokens=8,
        stop_ids=chat.stop_ids,
        pictures=transcript.pictures,
    )
    assert answer["choices"][0]["token_ids"] == reply.token_ids
