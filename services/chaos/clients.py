"""Clients of a service, on one of its nodes: what each was answered, told as a line of JSON.

    python -m services.chaos.clients URL STORE MODEL CLIENTS ITEMS     until standard input ends

Each asks again a moment after it is answered, on a connection of its own, and takes any answer for one: nothing is tried
twice. One more orders evaluations, one after the other, and looks whether they are whole.
"""

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx

from envs.base import ViterError
from services.client import Client, saved_token
from services.http.service import DIGEST_HEADER

ANSWER_S = 120.0  # what the service allows itself
EVALUATED_S = 600.0
SUITE = "general_points/id"
PAUSE_S = 0.1  # the head's start shall find a core too
LISTED_EVERY = 8  # of a client's requests, one asks the manager

_told = threading.Lock()


def main(words: Sequence[str]) -> None:
    """See the module."""
    url, store, model, clients, items = words
    token, over = saved_token(store), threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(over,), daemon=True).start()
    with Client(url, token) as service:
        while not service.is_ready() and not over.wait(0.5):  # its engines are loading
            pass
    asking = [threading.Thread(target=_ask, args=(url, token, model, number, over)) for number in range(int(clients))]
    evaluating = threading.Thread(target=_evaluate, args=(url, token, model, int(items), over), daemon=True)
    for thread in (*asking, evaluating):
        thread.start()
    for thread in asking:
        thread.join()


def _wait_for_the_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def _ask(url: str, token: str | None, model: str, number: int, over: threading.Event) -> None:
    body = {"model": model, "prompt": f"Cards: {number}", "max_tokens": 8, "temperature": 0}
    headers, asked = {"Authorization": f"Bearer {token}", "Connection": "close"}, 0
    with httpx.Client(base_url=url, headers=headers, timeout=ANSWER_S, trust_env=False) as http:
        while not over.is_set():
            asked += 1
            is_listing = asked % LISTED_EVERY == 0
            began = time.time()
            try:
                answer = http.get("/v1/evaluations") if is_listing else http.post("/v1/completions", json=body)
                status, said = answer.status_code, answer.text if answer.is_error else None
                text = None if is_listing or said else _answered(answer)
            except (httpx.HTTPError, ValueError, KeyError) as error:
                status, said, text = 0, f"{type(error).__name__}: {error}", None
            took = time.time() - began
            _tell("answer", client=number, status=status, said=said, text=text, began=began, seconds=took)
            over.wait(PAUSE_S)


def _answered(answer: httpx.Response) -> list[str]:
    """What was said, and by which weights."""
    return [answer.json()["choices"][0]["text"], answer.headers[DIGEST_HEADER]]


def _evaluate(url: str, token: str | None, model: str, items: int, over: threading.Event) -> None:
    with Client(url, token) as service:
        while not over.is_set():
            began = time.time()
            try:
                ordered = service.evaluate(model, suites=[SUITE], n=items, viter=3, decoding={"max_tokens": 24})
                _tell("ordered", began=began)
                ended = service.wait(ordered.id, deadline_s=EVALUATED_S)
                played = sorted(item.index for item in service.items(ordered.id))
                is_whole = (ended.status, ended.counts.failed, played) == ("completed", 0, list(range(items)))
                _tell("evaluated", began=began, ended=time.time(), whole=is_whole)
            except ViterError as error:
                _tell("evaluated", began=began, ended=time.time(), whole=False, said=str(error))


def _tell(kind: str, **what: Any) -> None:
    with _told:
        print(json.dumps({"kind": kind, **what}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
