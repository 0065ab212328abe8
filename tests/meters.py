"""Meters that remember."""

from collections import Counter

from cluster.metrics import Series

Key = tuple[str, ...]  # a name without `viter_`, and label values in the order of the series


class Remembered:
    """Sums of what was counted, the last of what was set, all of what was observed. Labels must be those of the series."""

    def __init__(self) -> None:
        self.counted: Counter[Key] = Counter()
        self.gauges: dict[Key, float] = {}
        self.seen: dict[Key, list[float]] = {}

    def add(self, series: Series, amount: float = 1.0, **labels: str) -> None:
        assert amount >= 0
        self.counted[self._key(series, "counter", labels)] += amount  # type: ignore[assignment]

    def set(self, series: Series, value: float, **labels: str) -> None:
        self.gauges[self._key(series, "gauge", labels)] = value

    def observe(self, series: Series, value: float, **labels: str) -> None:
        self.seen.setdefault(self._key(series, "histogram", labels), []).append(value)

    def _key(self, series: Series, kind: str, labels: dict[str, str]) -> Key:
        assert series.kind == kind
        assert set(labels) == set(series.labels), (series.name, labels)
        assert all(type(value) is str for value in labels.values())
        return series.name.removeprefix("viter_"), *(labels[name] for name in series.labels)
