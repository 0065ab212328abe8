"""Clients of others, unchanged: OpenAI's, and the requests that lm-eval sends."""

import httpx
import pytest
from openai import BadRequestError, OpenAI, UnprocessableEntityError

from services.client import Client
from tests.services.served.names import FIRST, QUESTION
from tests.services.sse import events_of
from trainers.chat import ChatFormat
from trainers.checkpoints import Checkpoints, materialise

pytestmark = pytest.mark.slow


@pytest.fixture
def openai(url: str, token: str):
    with OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0) as client:
        yield client


def test_scoring_as_lm_eval_asks_for_it_gives_the_log_probs_of_sampling(openai: OpenAI, state):
    """Token arrays in, `echo`, one token out: the log-probs of a greedy continuation are those it was drawn with."""
    chat = ChatFormat.load(materialise(Checkpoints(state, "nano").get(1), learner=False) / "model")
    prompts = [chat.tokenizer.encode(text, add_special_tokens=False) for text in ("Cards: ['A', '3']", "number")]
    ask = {"model": FIRST, "temperature": 0, "logprobs": 1, "seed": 1}
    drawn = openai.completions.create(prompt=prompts, max_tokens=4, **ask, extra_body={"return_token_ids": True})
    assert [choice.index for choice in drawn.choices] == [0, 1]
    for prompt, choice in zip(prompts, drawn.choices, strict=True):
        ids = choice.token_ids  # not its text: random weights draw what no text encodes to
        scored = openai.completions.create(prompt=[prompt + ids], max_tokens=1, echo=True, **ask)
        found = scored.choices[0].logprobs
        assert len(found.token_logprobs) == len(prompt) + len(ids) + 1
        assert found.token_logprobs[0] is None
        ours = found.token_logprobs[len(prompt) : len(prompt) + len(ids)]
        assert ours == pytest.approx(choice.logprobs.token_logprobs, abs=1e-3)
        tops = found.top_logprobs[len(prompt) : len(prompt) + len(ids)]
        assert ours == pytest.approx([max(top.values()) for top in tops], abs=1e-3)  # greedy, as lm-eval finds out


def test_a_streamed_completion_ends_with_its_usage(openai: OpenAI):
    ask = {"model": FIRST, "prompt": "Cards:", "max_tokens": 6, "temperature": 0}
    whole = openai.completions.create(**ask)
    chunks = list(openai.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage


def test_what_a_client_gets_wrong_is_its_own_exception(openai: OpenAI):
    with pytest.raises(UnprocessableEntityError, match="max_tokens: 65"):
        openai.chat.completions.create(model=FIRST, messages=QUESTION, max_tokens=65)
    with pytest.raises(BadRequestError):
        openai.completions.create(model=FIRST, prompt="x " * 5000, max_tokens=4)


def test_an_episode_is_told_turn_by_turn_and_repeats_itself(service: Client, url: str, token: str):
    order = {"checkpoint": FIRST, "environment": "general_points", "viter": 2, "seed": 3, "max_tokens": 12}

    def played() -> list[tuple[str, dict]]:
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.post(f"{url}/v1/episodes", json=order, headers=headers, timeout=60)
        assert answer.status_code == 200
        return events_of(answer.text)

    once = played()
    assert [name for name, _ in once] == ["task", "turn", "turn", "end"]
    assert once == played()
    task, *turns, end = (data for _, data in once)
    assert task["digest"] == end["digest"] == service.model(FIRST).metadata.digest
    for turn in turns:
        judged = service.verify(
            env="general_points", options=task["options"], state=task["data"], answer=turn["answer"], attempts_left=2
        )
        assert (judged["status"], judged["reward"]) == (turn["status"], turn["reward"])
