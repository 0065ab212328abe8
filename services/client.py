"""The HTTP surface from Python. The same for the command line, the demo and the tests."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from cluster.jobs import RetryableError
from envs.base import ConfigError, DataError, ViterError
from services.evaluations.compare import Comparison
from services.evaluations.events import END, Event, events_in
from services.evaluations.orders import Evaluation, EvaluationList, Item, ItemList
from services.http.routes.checkpoints import AliasSet, CheckpointList
from services.http.tokens import TOKEN_FILE
from services.registry import ModelCard, ModelList
from services.runs.groups import RunGroup, RunList

FIRST_POLL_S, LONGEST_POLL_S = 0.2, 2.0
RECONNECT_S = 60.0
PAGE = 500
PATIENCE_S = 60.0  # how long reading waits for a service that is full, or replaces a process


class ServiceError(ViterError):
    """The service refused or failed; the message is what it said."""


class ServiceUnreachable(RetryableError):
    """Nobody answers at this address."""


def saved_token(state: Path | str) -> str | None:
    """The operator's token as `viter serve` left it in the state directory, if it is there."""
    path = Path(state) / "service" / TOKEN_FILE
    return path.read_text().strip() if path.is_file() else None


class Client:
    """A service at `url`. Every failure is one sentence."""

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = 150.0):
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def models(self) -> list[ModelCard]:
        """Every checkpoint served."""
        return ModelList.model_validate(self._ask("GET", "/v1/models")).data

    def model(self, name: str) -> ModelCard:
        """One checkpoint, by name or alias."""
        return ModelCard.model_validate(self._ask("GET", f"/v1/models/{name}"))

    def checkpoints(self, run: str) -> Iterator[ModelCard]:
        """The checkpoints of one run, newest first, page by page."""
        return self._pages(f"/v1/runs/{run}/checkpoints", CheckpointList)

    def set_alias(self, run: str, alias: str, checkpoint: str) -> AliasSet:
        """Let `run@alias` stand for a checkpoint."""
        answer = self._ask("PUT", f"/v1/runs/{run}/aliases/{alias}", {"checkpoint": checkpoint})
        return AliasSet.model_validate(answer)

    def delete_alias(self, run: str, alias: str) -> None:
        """Let `run@alias` stand for nothing."""
        self._ask("DELETE", f"/v1/runs/{run}/aliases/{alias}")

    def chat(self, model: str, messages: Sequence[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """OpenAI's chat completion, as it came."""
        return self._ask("POST", "/v1/chat/completions", {"model": model, "messages": list(messages), **options})

    def evaluate(self, checkpoint: str, *, idempotency_key: str | None = None, **order: Any) -> Evaluation:
        """Order an evaluation; the other arguments are fields of `EvaluationOrder`."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        body = {"checkpoint": checkpoint, **order}
        return Evaluation.model_validate(self._ask("POST", "/v1/evaluations", body, headers=headers))

    def evaluation(self, evaluation_id: str) -> Evaluation:
        """How it stands now."""
        return Evaluation.model_validate(self._ask("GET", f"/v1/evaluations/{evaluation_id}"))

    def evaluations(self, **query: Any) -> list[Evaluation]:
        """The newest ones; `query` are fields of `EvaluationQuery`, e.g. `run="nano-gp-l"`."""
        return EvaluationList.model_validate(self._ask("GET", "/v1/evaluations", params=query)).data

    def events(self, evaluation_id: str, last: str | None = None) -> Iterator[Event]:
        """What happens to it, each event once, to its end; `last` is the id of the last event seen before.

        A connection that breaks is made anew. Raises ServiceUnreachable where that fails for a minute.
        """
        path, failed_since = f"/v1/evaluations/{evaluation_id}/events", None
        while last != END:
            try:
                headers = {"Last-Event-ID": last} if last else {}
                with self._http.stream("GET", path, headers=headers) as answer:
                    if not answer.is_success:
                        answer.read()
                        raise self._refusal(answer)
                    for event in events_in(answer.iter_lines()):
                        last, failed_since = event.id, None
                        yield event
            except (httpx.TransportError, ServiceError) as error:
                failed_since = failed_since or time.monotonic()
                if time.monotonic() - failed_since > RECONNECT_S:
                    raise ServiceUnreachable(f"{self.url}{path}: {error or type(error).__name__}") from None
            if last != END:
                time.sleep(FIRST_POLL_S)

    def cancel(self, evaluation_id: str) -> Evaluation:
        """Stop it."""
        return Evaluation.model_validate(self._ask("POST", f"/v1/evaluations/{evaluation_id}/cancel"))

    def compare(self, first: str, second: str) -> Comparison:
        """The second evaluation against the first, on the same tasks."""
        return Comparison.model_validate(self._ask("GET", f"/v1/evaluations/{first}/compare/{second}"))

    def wait(
        self,
        evaluation_id: str,
        on_progress: Callable[[Evaluation], object] = lambda _: None,
        *,
        deadline_s: float | None = None,
    ) -> Evaluation:
        """Poll until it has ended, telling each state. Raises ServiceError where it failed, or `deadline_s` passed."""
        end = time.monotonic() + deadline_s if deadline_s else None
        pause = FIRST_POLL_S
        while True:
            evaluation = self.evaluation(evaluation_id)
            on_progress(evaluation)
            if evaluation.status == "failed":
                raise ServiceError(f"{evaluation.id} of {evaluation.model} failed: {evaluation.error}")
            if evaluation.has_ended:
                return evaluation
            if end and time.monotonic() > end:
                counts = evaluation.counts
                raise ServiceError(
                    f"{evaluation.id} has not ended after {deadline_s:g} s: {counts.done} of {counts.total}"
                )
            time.sleep(pause)
            pause = min(LONGEST_POLL_S, pause * 1.5)

    def items(self, evaluation_id: str) -> Iterator[Item]:
        """Every finished item, page by page."""
        return self._pages(f"/v1/evaluations/{evaluation_id}/items", ItemList)

    def runs(self, limit: int = 100) -> list[RunGroup]:
        """The runs of its store, the one that began last first."""
        return RunList.model_validate(self._ask("GET", "/v1/runs", params={"limit": limit})).data

    def run(self, name: str) -> RunGroup:
        """How far a run is."""
        return RunGroup.model_validate(self._ask("GET", f"/v1/runs/{name}"))

    def submit_run(
        self, run: dict[str, Any] | None = None, *, file: str | None = None, set: dict[str, Any] | None = None
    ) -> RunGroup:
        """Train a run: the content of a run file, or a shipped one by name.

        Args:
            set: keys to override, as `{"ppo.viter": 10}`.
        """
        asked = {"run": run, "file": file, "set": set}
        body = {name: value for name, value in asked.items() if value is not None}
        return RunGroup.model_validate(self._ask("POST", "/v1/runs", body))

    def stop_run(self, name: str) -> RunGroup:
        """Ask it to end in order."""
        return RunGroup.model_validate(self._ask("POST", f"/v1/runs/{name}/stop"))

    def run_metrics(self, name: str, stage: str, *, after_step: int = -1) -> list[dict[str, Any]]:
        """The rows of a stage after a step."""
        params = {"stage": stage, "after_step": after_step}
        rows: list[dict[str, Any]] = self._ask("GET", f"/v1/runs/{name}/metrics", params=params)["data"]
        return rows

    def run_log(self, name: str, offset: int | None = None) -> tuple[str, int]:
        """What its job printed after `offset`, or its end, and the offset to go on from."""
        params = {} if offset is None else {"offset": offset}
        answer = self._send("GET", f"/v1/runs/{name}/logs", params=params)
        return answer.text, int(answer.headers["x-log-end"])

    def verify(self, **order: Any) -> dict[str, Any]:
        """Judge one answer: the fields of a line of `viter verify`."""
        return self._ask("POST", "/v1/verify", order)

    def suites(self) -> list[dict[str, Any]]:
        """The frozen task sets."""
        return self._ask("GET", "/v1/suites")["data"]

    def is_ready(self) -> bool:
        """Whether the service can answer for a checkpoint now."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def _pages(self, path: str, kind: type[ItemList] | type[CheckpointList]) -> Iterator[Any]:
        """Everything that a list holds, page by page."""
        after: str | None = None
        while True:
            params = {"limit": PAGE, **({"after": after} if after else {})}
            page = kind.model_validate(self._ask("GET", path, params=params))
            yield from page.data
            if not page.has_more:
                return
            after = page.last_id

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        return self._send(method, path, body, params=params, headers=headers).json()

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body, params=params, headers=headers)
            until = time.monotonic() + PATIENCE_S
            while method == "GET" and answer.status_code in (429, 503) and time.monotonic() < until:
                time.sleep(float(answer.headers.get("Retry-After", LONGEST_POLL_S)))  # a process is being replaced
                answer = self._http.request(method, path, params=params, headers=headers)
        except httpx.ConnectError:
            raise ServiceUnreachable(
                f"{self.url}: nobody answers; start it with `viter serve`, or name the service with --url"
            ) from None
        except httpx.TimeoutException:
            raise ServiceUnreachable(f"{self.url}{path}: no answer in time; is the service overloaded?") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceUnreachable(f"{self.url}{path}: {error or type(error).__name__}") from None
        if answer.is_success:
            return answer
        raise self._refusal(answer)

    def _refusal(self, answer: httpx.Response) -> ViterError:
        said = _detail(answer)
        if answer.status_code in (401, 403):
            return ConfigError(
                f"{self.url}: {said} ({answer.status_code}); set VITER_TOKEN to the one that `viter serve` showed, "
                f"or to what stands in STORE/service/{TOKEN_FILE}"
            )
        if answer.status_code == 404:
            return DataError(f"{self.url}: {said}")
        if answer.status_code == 422:
            return ConfigError(f"{self.url}: {said}")
        return ServiceError(f"{self.url}: {said} (HTTP {answer.status_code})")


def _detail(answer: httpx.Response) -> str:
    try:
        body = answer.json()
        return str(body.get("detail") or body["error"]["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return " ".join(answer.text.split())[:200] or answer.reason_phrase
