"""The dashboard and the alerts: their shape is Grafana's, their queries parse and ask for what a worker serves."""

import json
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from db.errors import Reason
from db.ledger.workers import Stage
from producer.queue.broker import Depth
from workers.telemetry.exporter import serving
from workers.telemetry.metrics import WorkerMetrics

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "tagonce.json").read_text(encoding="utf-8"))
VARIABLES = {"datasource": "prometheus", "model": "m", "worker": "w", "__rate_interval": "5m", "__range": "1h"}
ADDED_BY_PROMETHEUS = {"job", "instance"}
JOINED = {"model"}
"""Labels of tagonce_worker_info that `group_left` gives to other metrics."""


def queries_of_panels() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]


def queries_of_alerts() -> Iterator[tuple[str, str]]:
    path = DEPLOY / "kubernetes" / "components" / "monitoring" / "alerts.yaml"
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


QUERIES = [*queries_of_panels(), *queries_of_alerts()]


def filled(text: str) -> str:
    """As Grafana sends it, with its variables replaced."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: VARIABLES[match[1]], text)


@pytest.fixture(scope="module")
def served() -> dict[str, set[str]]:
    """Names of the labels of every metric that a worker with something to tell serves."""
    metrics = WorkerMetrics()
    for stage in Stage:
        metrics.add(stage, 1.0, 1)
    metrics.count_results(dict.fromkeys(Reason, 1), duplicates=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    about = {"model": "m", "device": "cpu", "precision": "float32"}
    with (
        serving(metrics, host="127.0.0.1", port=port, about=about, depth=lambda: Depth(1, 1)),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer,
    ):
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Where `kept` has not what `given` has. Defaults may have been added."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key in kept:
                yield from lost(value, kept[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for position, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{path}/{position}")
    elif given != kept:
        yield path


def through_grafanas_types(dashboard: dict[str, Any]) -> Any:
    plugins.register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def test_the_dashboard_is_what_grafana_reads() -> None:
    """Nothing of it is unknown to the types that Grafana generates from its own schemas. A typo would be noticed."""
    assert list(lost(DASHBOARD, through_grafanas_types(DASHBOARD))) == []
    typo = json.loads(json.dumps(DASHBOARD).replace('"gridPos"', '"gridPosition"', 1))
    assert list(lost(typo, through_grafanas_types(typo))) == ["/panels/0/gridPosition"]


def test_panels_do_not_lie_on_each_other() -> None:
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _y in cells) == 23
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identifiers) == len(set(identifiers))


def test_every_panel_asks_the_chosen_data_source_for_the_chosen_models_and_workers() -> None:
    variables = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "model", "worker"]
    for panel in DASHBOARD["panels"]:
        assert panel["description"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert '{model=~"$model", instance=~"$worker"}' in target["expr"]


def selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    """All in a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "vs", "param"):
        if (child := getattr(node, name, None)) is not None:
            yield from selectors(child)
    for child in getattr(node, "args", ()):
        yield from selectors(child)


@pytest.mark.parametrize("query", [query for _name, query in QUERIES], ids=[name for name, _query in QUERIES])
def test_queries_parse_and_ask_for_what_is_served(query: str, served: dict[str, set[str]]) -> None:
    """Names of metrics, of labels that are compared, and of labels that are grouped by."""
    parsed = promql_parser.parse(filled(query))
    found = list(selectors(parsed))
    assert {selector.name for selector in found} == set(re.findall(r"tagonce_\w+", query))
    for selector in found:
        known = served[selector.name] | ADDED_BY_PROMETHEUS
        assert {matcher.name for matcher in selector.matchers.matchers} <= known
    grouped = {name for names in re.findall(r"\bby \(([^)]+)\)", query) for name in names.split(", ")}
    assert grouped <= set.union(*(served[selector.name] for selector in found)) | ADDED_BY_PROMETHEUS | JOINED


@pytest.mark.parametrize("legend", [t["legendFormat"] for panel in DASHBOARD["panels"] for t in panel["targets"]])
def test_legends_name_labels_that_exist(legend: str, served: dict[str, set[str]]) -> None:
    labels = set.union(*served.values()) | ADDED_BY_PROMETHEUS
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= labels


def test_variables_ask_for_labels_that_exist(served: dict[str, set[str]]) -> None:
    for variable in DASHBOARD["templating"]["list"][1:]:
        query = variable["query"]["query"]
        (metric, wanted) = re.fullmatch(r"label_values\((\w+).*, (\w+)\)", query).groups()  # type: ignore[union-attr]
        assert wanted in served[metric] | ADDED_BY_PROMETHEUS


def test_every_metric_is_shown(served: dict[str, set[str]]) -> None:
    assert set(re.findall(r"tagonce_\w+", " ".join(query for _name, query in QUERIES))) == set(served)
