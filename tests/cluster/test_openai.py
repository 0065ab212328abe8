import asyncio
import json
from contextlib import aclosing

import pytest
import pytest_asyncio

import envs
from cluster.config import EngineConfig
from trainers.chat import ChatFormat

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

NAME = "a-run@step-000040"
MOST_TOKENS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from trainers.nano.model import create

    # V-IRL's phrases as tokens: letter by letter its prompts would be longer than the model reads
    return create(tmp_path_factory.mktemp("model") / "nano", seed=1, environment="virl")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model):
    from cluster.engine import Engine

    engine = await Engine.start(model, EngineConfig(dtype="float32", kv_cache_gib=0.25))
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def openai(engine):
    from cluster.engine import OpenAi

    return OpenAi(engine, max_tokens=MOST_TOKENS)


def chat_of(environment) -> list[dict[str, str]]:
    task = environment.sample(3, 1)
    return [{"role": m.role, "content": m.text} for m in environment.prompt(task, environment.start(task))]


async def events(stream) -> list[dict]:
    lines = [line async for line in stream]
    assert all(line.startswith("data: ") and line.endswith("\n\n") for line in lines)
    assert lines[-1] == "data: [DONE]\n\n"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.mark.parametrize("name", envs.names())
async def test_both_renderers_of_a_chat_write_the_same_ids(openai, model, name):
    environment, chat = envs.make(name), ChatFormat.load(model)
    for index in range(5):
        task = environment.sample(8, index)
        messages = environment.prompt(task, environment.start(task))
        body = {"model": NAME, "messages": [{"role": m.role, "content": m.text} for m in messages], "max_tokens": 1}
        answer = await openai.chat({**body, "return_token_ids": True})
        assert answer["prompt_token_ids"] == chat.prompt_ids(messages)


async def test_a_chat_is_answered_under_the_name_it_asked_for(openai):
    body = {"model": NAME, "messages": chat_of(envs.make("general_points")), "max_tokens": 7, "temperature": 0}
    answer = await openai.chat(body)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == NAME
    assert answer["usage"]["completion_tokens"] <= 7
    assert isinstance(answer["choices"][0]["message"]["content"], str)
    assert json.dumps(answer)


async def test_a_chat_that_names_no_number_of_tokens_ends_all_the_same(openai):
    answer = await openai.chat({"model": NAME, "messages": [{"role": "user", "content": "x"}], "ignore_eos": True})
    assert answer["usage"]["completion_tokens"] == MOST_TOKENS


async def test_a_stream_says_the_same_as_a_whole_answer(openai):
    body = {"model": NAME, "messages": chat_of(envs.make("general_points")), "max_tokens": 20, "temperature": 0}
    whole = await openai.chat(body)
    chunks = await events(await openai.chat({**body, "stream": True}))
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert said == whole["choices"][0]["message"]["content"]
    assert {chunk["model"] for chunk in chunks} == {NAME}


async def test_names_of_requests_at_the_same_time_are_not_mixed_up(openai):
    def ask(name: str):
        return openai.completion({"model": name, "prompt": "hello", "max_tokens": 5})

    answers = await asyncio.gather(*(ask(f"run@step-{i:06d}") for i in range(16)))
    assert [answer["model"] for answer in answers] == [f"run@step-{i:06d}" for i in range(16)]


async def test_token_ids_complete_as_they_do_through_the_engine(openai, engine):
    ids = list(range(10, 40))
    answer = await openai.completion(
        {"model": NAME, "prompt": ids, "max_tokens": 12, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    )
    direct = await engine.generate(ids, seed=0, temperature=0.0, max_tokens=12, stop_ids=[])
    assert answer["choices"][0]["token_ids"] == direct.token_ids


async def test_a_completion_streams(openai):
    stream = await openai.completion({"model": NAME, "prompt": "hello", "max_tokens": 6, "stream": True})
    assert next(chunk["object"] for chunk in await events(stream)) == "text_completion"


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        ("chat", {"model": NAME}, "messages"),
        ("chat", {"model": NAME, "messages": [{"role": "user", "content": "x"}], "temperature": "hot"}, "temperature"),
        ("chat", {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 9999}, "max_model_len"),
        (
            "chat",
            {"model": NAME, "messages": [{"role": "user", "content": "x"}], "chat_template": "{{ 1 }}"},
            "template",
        ),
        ("completion", {"model": NAME, "prompt": [10**9]}, "vocab"),
        ("completion", {"model": NAME, "prompt": "x", "top_p": 7}, "top_p"),
    ],
)
async def test_a_bad_request_is_an_error_body_with_its_status(openai, engine, route, body, words):
    answer = await getattr(openai, route)(body)
    assert answer["error"]["code"] == 400
    assert words in answer["error"]["message"]
    await engine.check_health()


async def test_closing_a_stream_ends_the_work(openai, engine):
    body = {"model": NAME, "prompt": "hello", "max_tokens": 900, "ignore_eos": True, "stream": True}
    async with aclosing(await openai.completion(body)) as stream:
        await anext(stream)
    await asyncio.sleep(0.1)
    assert engine.llm.get_num_unfinished_requests() == 0
