"""Bodies that are large, slow or never end, over real sockets; and what Serve's proxy is given to put before itself."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from services.config import LimitsConfig
from services.http.guard import proxy_middlewares
from services.http.request_body import ProxyGuard
from tests.services.http.running import Running, running

LIMITS = LimitsConfig(body_bytes=4096, body_s=0.3, requests=4, calls=4, token_share=1.0)


@pytest.fixture
def service(store: Path) -> Iterator[Running]:
    with running(store, limits=LIMITS) as made:
        yield made


def connection(service: Running) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def head(service: Running, *lines: str) -> bytes:
    asked = ("POST /v1/completions HTTP/1.1", "Host: x", "Content-Type: application/json", *lines)
    authorised = (*asked, *(f"{name}: {value}" for name, value in service.headers.items()))
    return "\r\n".join((*authorised, "", "")).encode()


def answer_of(client: socket.socket) -> tuple[int, dict[str, object], bool]:
    """Status and body of what comes, and whether the server ends the connection then."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    headers, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(": ", 1) for line in headers.decode().split("\r\n")[1:])
    while len(body) < int(fields["content-length"]):
        body += client.recv(65536)
    return int(headers.split()[1]), json.loads(body), fields.get("connection") == "close"


def test_a_large_body_is_refused_by_its_announcement_before_a_byte_of_it_comes(service: Running):
    with connection(service) as client:
        client.sendall(head(service, "Content-Length: 4097"))
        assert answer_of(client)[::2] == (413, True)
    for nonsense in ("9" * 400, "-1", "1e3", "0x10", "٣"):
        with connection(service) as client:
            client.sendall(head(service, f"Content-Length: {nonsense}"))
            assert client.recv(64).split()[1] in (b"400", b"413")


def test_a_body_in_chunks_is_read_no_further_than_the_limit(service: Running):
    with connection(service) as client:
        client.sendall(head(service, "Transfer-Encoding: chunked"))
        client.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n1\r\nx\r\n")
        assert answer_of(client)[::2] == (413, True)


def test_a_body_that_does_not_come_is_408_and_gives_its_place_back(service: Running):
    slow = [connection(service) for _ in range(LIMITS.requests)]
    for client in slow:
        client.sendall(head(service, "Content-Length: 100") + b"{")
    told = [answer_of(client) for client in slow]
    assert [(status, ends) for status, _, ends in told] == [(408, True)] * len(slow)
    assert all("0.3 seconds" in str(body["detail"]) for _, body, _ in told)
    for client in slow:
        client.close()
    body = {"model": "nano-a@latest", "prompt": "x"}
    assert httpx.post(f"{service.url}/v1/completions", json=body, headers=service.headers).status_code == 200


def test_when_all_places_are_taken_others_hear_so_at_once_and_health_goes_on(store):
    """Slow bodies hold every place of one kind. The next is refused by its headers alone: no body of it is awaited."""
    patient = LIMITS.model_copy(
        update={"body_s": 60.0}
    )  # places stay taken for longer than a busy machine takes to look
    with running(store, limits=patient) as service:
        slow = [connection(service) for _ in range(LIMITS.requests)]
        for client in slow:
            client.sendall(head(service, "Content-Length: 100") + b"{")
        deadline = time.monotonic() + 30
        with httpx.Client(base_url=service.url, headers=service.headers) as http:
            while http.post("/v1/completions", json={}).status_code != 429:
                assert time.monotonic() < deadline
            with connection(service) as next_one:
                next_one.sendall(head(service, "Content-Length: 100"))
                status, body, _ = answer_of(next_one)
            assert http.get("/livez").status_code == 200
            assert http.get("/v1/models").status_code == 200
        assert (status, body["status"], "sampling" in str(body["detail"])) == (429, 429, True)
        for client in slow:
            client.close()


class Proxied:
    """An application behind the proxy's middleware. It reads a body as Serve's proxy does: passing each part on."""

    def __init__(self) -> None:
        self.headers: list[bytes] = []
        self.received = 0
        self.was_left = False
        self.answers_at_once = False
        self.lingers_s = 0.0

    async def __call__(self, scope, receive, send):
        self.headers = [name for name, _ in scope["headers"]]
        while not self.answers_at_once:
            message = await receive()
            self.received += len(message.get("body", b""))
            self.was_left = message["type"] == "http.disconnect"
            if self.was_left or not message.get("more_body"):
                break
        status = 499 if self.was_left else 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        await asyncio.sleep(self.lingers_s)


@pytest.fixture
async def proxied() -> AsyncIterator[tuple[Proxied, int]]:
    app = Proxied()
    listener = socket.create_server(("127.0.0.1", 0))
    limited = ProxyGuard(app, most_bytes=4096, deadline_s=0.2, most_requests=1)
    server = uvicorn.Server(uvicorn.Config(limited, log_level="error", lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    yield app, listener.getsockname()[1]
    server.should_exit = True
    await task


async def asked(port: int, *parts: bytes) -> int:
    """The status that comes after these bytes were sent."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in parts:
            writer.write(part)
            await writer.drain()
        status = int((await reader.readline()).split()[1])
        writer.close()
        return status


POST = b"POST /v1/x HTTP/1.1\r\nHost: x\r\n"


async def test_the_proxy_lets_a_body_pass_that_fits(proxied: tuple[Proxied, int]):
    app, port = proxied
    assert await asked(port, POST + b"Content-Length: 4096\r\n\r\n", b"x" * 4096) == 200
    assert app.received == 4096


async def test_the_proxy_refuses_by_announcement_in_passing_and_by_time(proxied: tuple[Proxied, int]):
    app, port = proxied
    assert await asked(port, POST + b"Content-Length: 4097\r\n\r\n") == 413
    assert app.received == 0
    chunk = b"800\r\n" + b"x" * 2048 + b"\r\n"
    assert await asked(port, POST + b"Transfer-Encoding: chunked\r\n\r\n", chunk * 3) == 413
    assert app.was_left
    app.was_left = False
    assert await asked(port, POST + b"Content-Length: 9\r\n\r\n", b"x") == 408
    assert app.was_left


async def test_the_proxy_holds_no_refusal_back_until_the_body_is_there(proxied: tuple[Proxied, int]):
    app, port = proxied
    app.answers_at_once = True
    assert await asked(port, POST + b"Content-Length: 100\r\n\r\n") == 200


async def test_the_proxy_turns_a_crowd_away_itself_and_lets_all_else_pass(proxied: tuple[Proxied, int]):
    app, port = proxied
    sampling = POST.replace(b"/v1/x", b"/v1/completions") + b"Content-Length: 9\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sampling + b"x" * 8)
    async with asyncio.timeout(5):
        while app.received < 8:
            await asyncio.sleep(0.001)
    assert await asked(port, sampling) == 429
    assert await asked(port, POST + b"Content-Length: 0\r\n\r\n") == 200
    writer.write(b"x")
    assert (await reader.readline()).split()[1] == b"200"
    writer.close()
    assert await asked(port, sampling, b"x" * 9) == 200


async def test_a_client_that_has_its_answer_finds_its_place_free(proxied: tuple[Proxied, int]):
    """The proxy's own work after the answer takes no place: nobody is waiting for it."""
    app, port = proxied
    app.lingers_s = 0.3
    sampling = POST.replace(b"/v1/x", b"/v1/completions") + b"Content-Length: 1\r\n\r\n"
    assert [await asked(port, sampling, b"x") for _ in range(3)] == [200, 200, 200]


async def test_the_proxy_never_hears_the_headers_that_would_lift_its_deadline(proxied: tuple[Proxied, int]):
    app, port = proxied
    tricks = b"X-Request-Timeout-Seconds: 0\r\nx-request-disconnect-disabled: ?1\r\n"
    assert await asked(port, POST + tricks + b"X-Other: 1\r\nContent-Length: 0\r\n\r\n") == 200
    assert b"x-other" in app.headers
    assert not {b"x-request-timeout-seconds", b"x-request-disconnect-disabled"} & set(app.headers)


def test_the_proxys_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    (plain,) = proxy_middlewares()
    assert plain.kwargs == {"most_bytes": 1 << 20, "deadline_s": 10.0, "most_requests": 256}
    monkeypatch.setenv("VITER_BODY_BYTES", "2048")
    monkeypatch.setenv("VITER_BODY_SECONDS", "2.5")
    monkeypatch.setenv("VITER_REQUESTS", "7")
    (set_,) = proxy_middlewares()
    assert (set_.cls, set_.kwargs) == (ProxyGuard, {"most_bytes": 2048, "deadline_s": 2.5, "most_requests": 7})
