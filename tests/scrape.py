"""What Prometheus would read from the Ray node that this process is connected to."""

import time
from collections.abc import Callable

import httpx
import ray
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[frozenset, float]


def scraped(
    wanted: set[str], until: Callable[[dict[str, Samples]], bool], *, within_s: float = 40.0
) -> dict[str, Samples]:
    """Samples by series name and labels, the last value of each, once every name of `wanted` was there and `until` holds.

    Processes export now and then, each in its own time, so that one scrape may show only some of what happened.

    Raises:
        AssertionError: names never came, or `until` never held.
    """
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found: dict[str, Samples] = {}
    end = time.monotonic() + within_s
    while True:
        for family in text_string_to_metric_families(httpx.get(url, timeout=10).text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        if not (missing := wanted - found.keys()) and until(found):
            return found
        assert time.monotonic() < end, sorted(missing) or {name: found[name] for name in sorted(wanted)}
        time.sleep(0.2)


def total(samples: Samples, **labels: str) -> float:
    """The sum over the samples that have these labels."""
    return sum(value for have, value in samples.items() if labels.items() <= dict(have).items())
