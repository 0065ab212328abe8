"""What the client makes of answers that are none."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from envs.base import ConfigError, DataError
from services import client as client_module
from services.client import Client, ServiceError, ServiceUnreachable, saved_token


class Refuses(BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        status = int(self.path.rpartition("/")[2].removeprefix("eval-"))
        body = b"Internal Server Error" if status == 500 else json.dumps({"detail": f"told {status}"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, ConfigError, "VITER_TOKEN"),
        (403, ConfigError, "VITER_TOKEN"),
        (404, DataError, "told 404"),
        (422, ConfigError, "told 422"),
        (429, ServiceError, "told 429"),
        (500, ServiceError, "Internal Server Error"),
    ],
)
def test_a_refusal_is_one_sentence_of_the_right_kind(
    url: str, status: int, kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client_module, "PATIENCE_S", 0.0)
    with Client(url) as client, pytest.raises(kind, match=words) as error:
        client.evaluation(f"eval-{status}")
    assert "\n" not in str(error.value)


def test_nobody_at_the_address_is_one_sentence():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client:
        assert not client.is_ready()
        with pytest.raises(ServiceUnreachable, match="viter serve"):
            client.models()


def test_a_saved_token_is_found_or_is_none(tmp_path):
    assert saved_token(tmp_path) is None
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "token").write_text("abc\n")
    assert saved_token(tmp_path) == "abc"
