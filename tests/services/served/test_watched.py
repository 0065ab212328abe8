"""What an operations team sees of the real service: a scrape of its node, and its log files."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from cluster import metrics
from services.client import Client
from tests.deploy.test_monitoring import RAYS
from tests.scrape import Samples, scraped, total
from tests.services.served.names import FIRST, QUESTION, SECOND

pytestmark = pytest.mark.slow


def test_prometheus_reads_every_series_of_the_service_and_those_of_ray_that_alerts_use(service: Client, url: str):
    assert httpx.get(f"{url}/v1/models").status_code == 401
    for name in (FIRST, SECOND):
        service.chat(name, QUESTION, max_tokens=2)
    service.verify(env="general_points", state={"cards": ["C7", "D3", "HA", "S2"]}, answer="{}")
    evaluation = service.evaluate(FIRST, n=8, viter=1, decoding={"max_tokens": 8}, suites=["general_points/id"])
    assert service.wait(evaluation.id, deadline_s=60).status == "completed"
    ours = {name for each in metrics.SERIES if "run" not in each.labels for name in each.samples}

    def is_all_told(shown: dict[str, Samples]) -> bool:
        counted = {
            "http_requests_total": {"route": "/v1/models", "code": "401"},
            "http_request_seconds_count": {"route": "/v1/evaluations"},
            "http_rejected_total": {"reason": "token"},
            "engine_swaps_total": {"how": "in_place"},
            "tokens_total": {"work": "completion", "kind": "sampled"},
            "evaluations_ended_total": {"state": "completed"},
            "evaluation_items_total": {"outcome": "unsolved"},
        }
        return all(total(shown[f"ray_viter_{name}"], **labels) >= 1 for name, labels in counted.items())

    scraped(ours | RAYS, until=is_all_told)


def test_one_request_id_stands_in_the_lines_of_gateway_and_replica_and_no_secret_in_any(url: str, token: str):
    headers = {"Authorization": f"Bearer {token}", "x-request-id": "trace-1"}
    body = {"model": FIRST, "messages": [{"role": "user", "content": "tell nobody"}], "max_tokens": 4}
    assert httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30).status_code == 200
    logs = Path(ray._private.worker._global_node.get_session_dir_path(), "logs", "serve")
    told: dict[str, dict[str, Any]] = {}
    end = time.monotonic() + 10
    while told.keys() != {"viter_gateway", "viter_replica"}:  # the gateway writes its line once the answer is out
        assert time.monotonic() < end, told
        texts = [path.read_text() for path in logs.glob("*.log")]
        lines = [json.loads(line) for text in texts for line in text.splitlines() if '"trace-1"' in line]
        told = {line["deployment"]: line for line in lines if "endpoint" in line}
    gateway, replica = told["viter_gateway"], told["viter_replica"]
    assert (gateway["endpoint"], gateway["status"], gateway["token_name"]) == ("/v1/chat/completions", 200, "operator")
    assert gateway["digest"] == replica["digest"]
    assert 0 < gateway["completion_tokens"] == replica["completion_tokens"] <= 4
    assert not any(token in text or "tell nobody" in text for text in texts)
