"""What a completion request may hold, and that nothing else reaches an engine."""

import ast
import base64
import importlib.util
import io
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from PIL import Image

from services.config import LimitsConfig
from services.http import problems
from services.http.guard import Guard
from services.http.problems import TooMuch
from services.http.sampling import REFUSED, ChatRequest, CompletionRequest, check_image

LIMITS = LimitsConfig(max_tokens=64, choices=2, images=2, image_pixels=64 * 64)
KINDS = {"chat_completion": ChatRequest, "completion": CompletionRequest}
CHAT = {"model": "a@latest", "messages": [{"role": "user", "content": "x"}]}


def uri(image: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def picture(side: int = 8, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side)).save(out, kind)
    return out.getvalue()


def bomb(side: int) -> bytes:
    """A PNG that is small and says it is large."""
    chunk = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    framed = b"IHDR" + chunk
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(chunk)) + framed + struct.pack(">I", zlib.crc32(framed))
        + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )  # fmt: skip


IMAGE = {"type": "image_url", "image_url": {"url": uri(picture())}}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """Two routes that answer with what they would pass on."""
    routes = FastAPI()
    problems.install(routes, REFUSED)
    routes.add_middleware(Guard, tokens=None, limits=LIMITS)

    @routes.post("/v1/chat/completions")
    async def chat(_: Request, body: ChatRequest) -> dict[str, Any]:
        body.within(LIMITS)
        return body.asked

    @routes.post("/v1/completions")
    async def completions(_: Request, body: CompletionRequest) -> dict[str, Any]:
        body.within(LIMITS)
        return body.asked

    transport = httpx.ASGITransport(routes)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_the_installed_vllm_is_either_taken_or_refused_with_a_reason(kind: str):
    """Read off its source: importing it takes longer than all tests of this file."""
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).parent / "entrypoints" / "openai" / kind / "protocol.py"
    name = {"chat_completion": "ChatCompletionRequest", "completion": "CompletionRequest"}[kind]
    declared = next(
        node for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef) and node.name == name
    )
    fields = {
        node.target.id
        for node in declared.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not node.target.id.startswith("_")
    }
    taken = set(KINDS[kind].model_fields)
    assert len(fields) > 40
    assert fields - taken - set(REFUSED) == set()
    assert taken - fields == set(), "fields that vLLM would not read"
    assert not taken & set(REFUSED)


@pytest.mark.parametrize("field", sorted(REFUSED))
async def test_a_refused_field_is_422_with_its_name_and_the_reason(http: httpx.AsyncClient, field: str):
    for route, body in (("chat/completions", CHAT), ("completions", {"model": "a@latest", "prompt": "x"})):
        answer = await http.post(f"/v1/{route}", json=body | {field: "a" * 10})
        told = answer.json()
        assert (answer.status_code, told["errors"][0]["pointer"]) == (422, f"/{field}")
        assert told["error"]["param"] == field
        assert REFUSED[field] in told["detail"]
        assert (await http.post(f"/v1/{route}", json=body | {field: None})).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 65), ("max_tokens", 10**9), ("max_tokens", -1), ("max_completion_tokens", 10**9), ("min_tokens", 65),
        ("n", 3), ("n", 0), ("n", 10**9), ("best_of", 2), ("temperature", -1), ("temperature", "hot"), ("top_p", 0),
        ("top_p", 7), ("top_logprobs", 21), ("top_logprobs", -1), ("prompt_logprobs", -1), ("prompt_logprobs", 10**6),
        ("logit_bias", {str(i): 1 for i in range(301)}), ("logit_bias", {"1": 1000}), ("logit_bias", {"x": 1}),
        ("stop", ["a"] * 5), ("stop", "x" * 257), ("stop", ["x" * 257]), ("stop", [""]), ("stop_token_ids", [1] * 65),
        ("stop_token_ids", [-1]), ("seed", 10**18 * 10), ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {"pattern": "(a+)+$" * 999}}}),
        ("response_format", {"type": "structural_tag"}), ("stream_options", {"x": 1}), ("stream_interval", 0),
        ("messages", "no list"), ("messages", [{"role": "tool", "content": "x"}]), ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": "x", "tool_calls": [{"id": 1}]}]),
        ("messages", [{"role": "user", "content": [{"type": "text", "text": "x", "extra": 1}]}]),
        ("messages", [{"role": "user", "content": "x"}] * 1025), ("user", "x" * 257), ("model", ""), ("model", 3),
        ("a/b~c", 1), ("store", True),
    ],
)  # fmt: skip
async def test_what_is_out_of_bounds_is_422_and_names_the_field(http: httpx.AsyncClient, field: str, value: object):
    answer = await http.post("/v1/chat/completions", json=CHAT | {field: value})
    told = answer.json()
    assert answer.status_code in (400, 422), told
    assert answer.headers["content-type"] == "application/problem+json"
    if answer.status_code == 422:
        assert told["errors"][0]["pointer"].split("/")[1] == field.replace("~", "~0").replace("/", "~1")
        assert len(told["errors"]) <= 10
        assert len(answer.content) < 8192


def test_what_openais_clients_send_goes_through_as_it_is():
    body = CHAT | {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "look"}, IMAGE]},
            {"role": "assistant", "content": "an answer", "refusal": None, "tool_calls": [], "audio": None},
            {"role": "user", "content": "and?", "name": "ada"},
        ],
        "stop": ["a", "b"], "logit_bias": {"5": -100}, "temperature": 0, "seed": 3, "n": 2, "max_completion_tokens": 64,
        "top_logprobs": 3, "logprobs": True, "stream": True, "stream_options": {"include_usage": True},
        "response_format": {"type": "text"}, "user": "me", "tools": None,
    }  # fmt: skip
    request = ChatRequest.model_validate(body)
    request.within(LIMITS)
    expected = {key: value for key, value in body.items() if value is not None}
    expected["messages"] = [
        {key: value for key, value in message.items() if value not in (None, [])} for message in body["messages"]
    ]
    assert request.asked == expected


@pytest.mark.parametrize("prompt", ["x", "", ["a", "b"], [1, 2, 3, 4, 5], [[1, 2], [3]]])
def test_every_form_of_prompt_passes(prompt: object):
    request = CompletionRequest.model_validate(
        {"model": "a", "prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 0}
    )
    request.within(LIMITS)
    assert request.asked["prompt"] == prompt


@pytest.mark.parametrize("prompt", [["a"] * 3, [[1]] * 3, [1, "a"], [[1], "a"], [2**31], [-1], 3, {}, [{}], [[[1]]]])
async def test_other_prompts_do_not(http: httpx.AsyncClient, prompt: object):
    answer = await http.post("/v1/completions", json={"model": "a", "prompt": prompt})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/prompt")


@pytest.mark.parametrize(
    "part",
    [
        *({"type": "image_url", "image_url": {"url": url}} for url in (
            "http://169.254.169.254/latest/meta-data", "https://example.org/a.png", "file:///etc/passwd", "ftp://a/b",
            "/etc/passwd", "HTTP://a/b", "data:text/html;base64,AAAA", "DATA:image/png;base64,AAAA", "data:image/png,AAAA",
            "data:image/png;base64,@@@", "data:image/png;base64,", "", uri(b"%!PS-Adobe-3.0 EPSF-3.0"),
            uri(picture(8, "GIF"), "gif"), uri(picture(8, "BMP"), "bmp"), uri(picture()[:30]),
            uri(picture(65)), uri(bomb(100_000)), uri(bomb(2**31 - 1)),
        )),
        {"type": "image_url", "image_url": {"url": uri(picture())}, "uuid": "another's"},
        {"type": "image_url", "image_url": "data:image/png;base64,AAAA"},
        {"type": "video_url", "video_url": {"url": "http://a/b"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "image_embeds", "image_embeds": "AAAA"},
        {"type": "prompt_embeds", "data": "AAAA"},
        {"image_url": "http://a/b"},
    ],
)  # fmt: skip
async def test_only_an_image_within_the_request_is_read(http: httpx.AsyncClient, part: dict[str, object]):
    body = CHAT | {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]}
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/messages/0/content/1")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_three_formats_are_read(kind: str):
    check_image(uri(picture(64, kind), kind.lower()), "x", 64 * 64)


def test_no_more_images_than_the_limit():
    for count, fits in ((2, True), (3, False)):
        request = ChatRequest.model_validate(CHAT | {"messages": [{"role": "user", "content": [IMAGE] * count}]})
        if fits:
            request.within(LIMITS)
        else:
            with pytest.raises(TooMuch, match="messages"):
                request.within(LIMITS)


async def test_many_mistakes_cost_no_more_than_few(http: httpx.AsyncClient):
    """A list of a hundred thousand wrong things is told by its first; the same of unknown fields."""
    for body in (
        {"model": "a", "prompt": ["x"] + [1] * 200_000},
        {"model": "a", "prompt": [1] + [[]] * 200_000},
        {"model": "a", "prompt": "x"} | {f"k{i}": 0 for i in range(50_000)},
    ):
        answer = await http.post("/v1/completions", json=body)
        assert (answer.status_code, len(answer.json()["errors"]) <= 10) == (422, True)
