"""A checkpoint that sees, beside others that read text alone: another architecture, so its engine is started anew."""

import base64
import shutil
from pathlib import Path

import httpx
import pytest
from openai import BadRequestError, OpenAI, UnprocessableEntityError

from tests.services.served.names import FIRST
from tests.services.sse import events_of
from trainers.checkpoints import CheckpointInfo, Checkpoints

pytestmark = pytest.mark.slow

BASE = Path(__file__).parents[3] / "deploy" / "models" / "nano-gp-vl-base"
OPTIONS = {"modality": "vision", "suits": "black", "resolution": 128}
SEEING = "seeing@step-000001"
TOKENS = 64


@pytest.fixture
def seeing(state: Path) -> str:
    info = CheckpointInfo(parents=(), metrics={}, compute={}, config={}, world_size=1)
    Checkpoints(state, "seeing").commit(1, lambda path: shutil.copytree(BASE, path / "model"), info)
    return SEEING


def asking(card: dict, png: bytes) -> list[dict]:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": source}}, {"type": "text", "text": card["prompt"]}]
    return [{"role": "user", "content": parts}]


def test_a_picture_by_the_openai_client_is_read_as_an_episode_shows_it(url: str, token: str, seeing: str):
    """The same greedy answer by two roads: a data: URI through vLLM's chat, and the environment's own prompt."""
    headers = {"Authorization": f"Bearer {token}"}
    with (
        httpx.Client(base_url=url, headers=headers, timeout=120) as http,
        OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0, timeout=120) as openai,
    ):
        with pytest.raises((BadRequestError, UnprocessableEntityError)):
            openai.chat.completions.create(model=FIRST, messages=asking({"prompt": "x"}, b"no picture"), max_tokens=4)
        for seed in (1, 2):
            dealt = {"seed": seed, "options": OPTIONS}
            card = http.post("/v1/environments/general_points/tasks", json=dealt).raise_for_status().json()
            picture = {"data": card["data"], "options": OPTIONS, "key": card["images"][0]}
            png = http.post("/v1/environments/general_points/images", json=picture).raise_for_status().content
            chat = openai.chat.completions.create(
                model=seeing, messages=asking(card, png), max_tokens=TOKENS, temperature=0
            )
            order = {
                "checkpoint": seeing, "environment": "general_points", "options": OPTIONS, "data": card["data"],
                "viter": 1, "temperature": 0, "max_tokens": TOKENS,
            }  # fmt: skip
            events = http.post("/v1/episodes", json=order).raise_for_status().text
            assert chat.model == seeing
            assert chat.choices[0].message.content
            _, (_, turn), _ = events_of(events)
            assert turn["answer"] == chat.choices[0].message.content
