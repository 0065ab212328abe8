"""What Prometheus would read from the Ray node that this process is connected to."""

import time

import httpx
import ray
from prometheus_client.parser import text_string_to_metric_families


def scraped(wanted: set[str], *, within_s: float = 30.0) -> dict[str, dict[frozenset, float]]:
    """Samples by series name and labels, gathered until every name of `wanted` was there, and the last value of each.

    Raises:
        AssertionError: some never came.
    """
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found: dict[str, dict[frozenset, float]] = {}
    end = time.monotonic() + within_s
    while missing := wanted - found.keys():
        assert time.monotonic() < end, sorted(missing)
        for family in text_string_to_metric_families(httpx.get(url, timeout=10).text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        time.sleep(0.2)
    return found


def total(samples: dict[frozenset, float], **labels: str) -> float:
    """The sum over the samples that have these labels."""
    return sum(value for have, value in samples.items() if labels.items() <= dict(have).items())
