"""Dashboard and alerts ask only for series that exist, by labels that they have. A slow test scrapes those series."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from cluster import metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
RAYS = {"ray_node_disk_free", "ray_node_disk_usage", "ray_node_mem_used"}
"""Series of Ray itself; `tests/services/served/test_watched.py` finds them in a scrape, beside ours."""
RAYS_LABELS = {"NodeAddress", "le"}
SERIES = {name: set(each.labels) for each in metrics.SERIES for name in each.samples} | {n: set() for n in RAYS}

DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())
ALERTS = [rule for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {
    **{f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]},
    **{rule["alert"]: rule["expr"] for rule in ALERTS},
}


def nodes(expression: Any) -> Iterator[Any]:
    """Every node of a parsed expression."""
    yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(expression, name, None)
        if child is not None:
            yield from nodes(child)
    for child in getattr(expression, "args", None) or ():
        yield from nodes(child)


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Name and matched labels of each series that an expression reads."""
    found = [node for node in nodes(promql.parse(expression)) if isinstance(node, promql.VectorSelector)]
    return [(node.name, {matcher.name for matcher in node.matchers.matchers} - {"__name__"}) for node in found]


def unknown(expression: str) -> list[str]:
    """What an expression reads and nothing exports."""
    return [name for name, labels in selectors(expression) if name not in SERIES or not labels <= SERIES[name]]


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_an_expression_reads_series_that_are_exported(title: str):
    assert selectors(EXPRESSIONS[title]) != []
    assert unknown(EXPRESSIONS[title]) == []


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_an_expression_groups_by_labels_that_its_series_have(title: str):
    expression = EXPRESSIONS[title]
    grouped = {
        label.strip()
        for labels in re.findall(r"\bby \(([^)]*)\)", expression)
        for label in labels.split(",")
    }  # fmt: skip
    for name, _ in selectors(expression):
        assert grouped <= SERIES[name] | RAYS_LABELS


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ('sum(rate(ray_viter_http_requests_total{code="500"}[5m]))', []),
        ("absent(ray_viter_no_such)", ["ray_viter_no_such"]),
        ('1 - ray_viter_kl{run="a"} or ray_viter_train_step', ["ray_viter_kl"]),
        ('ray_viter_http_requests_total{path="/x"}', ["ray_viter_http_requests_total"]),
        ("ray_viter_http_request_seconds", ["ray_viter_http_request_seconds"]),  # a histogram has no such sample
        ("max_over_time((ray_viter_gone > 1)[5m:1m])", ["ray_viter_gone"]),
    ],
)
def test_the_check_sees_what_is_wrong(expression: str, wrong: list[str]):
    assert unknown(expression) == wrong


def test_every_series_that_can_tell_of_trouble_is_on_the_dashboard():
    shown = {name for panel in PANELS for target in panel["targets"] for name, _ in selectors(target["expr"])}
    unseen = {each.name for each in metrics.SERIES if not shown & set(each.samples)}
    assert unseen == {"viter_train_steps"}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_leads_to_its_place_in_the_runbook(rule: dict[str, Any]):
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    page, anchor = rule["annotations"]["runbook"].split("#")
    assert f'<a id="{anchor}"></a>\n###' in (DEPLOY.parent / page).read_text()
    asked = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", rule["expr"]))))
    plain = set().union(*(SERIES[name] for name, _ in selectors(rule["expr"]))) if not grouped else set()
    assert asked <= grouped | plain


def test_alerts_have_names_of_their_own_and_the_runbook_no_place_that_nothing_leads_to():
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)
    linked = {rule["annotations"]["runbook"].split("#")[1] for rule in ALERTS}
    page = (DEPLOY / "OPERATIONS.md").read_text()
    assert set(re.findall(r'<a id="([^"]+)">', page)) == linked
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= linked
    told = set(re.findall(r"ray_\w+", page)) - {"ray_viter_"}
    exported = {each.exported for each in metrics.SERIES} | set(SERIES)
    assert told <= exported


def test_the_dashboard_asks_its_own_data_source_and_lays_panels_side_by_side():
    assert DASHBOARD["schemaVersion"] >= 39
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    (series, label) = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables["run"]["query"]["query"]).groups()
    assert label in SERIES[series]
    sources = [panel["datasource"] for panel in PANELS] + [
        t["datasource"] for panel in PANELS for t in panel["targets"]
    ]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells
        assert at["x"] + at["w"] <= 24
        taken |= cells
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Training", "Rollouts", "Service", "Engines", "Evaluations", "Faults"]
