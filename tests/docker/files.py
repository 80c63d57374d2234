"""What `docker/` and `docker-compose.yml` hold."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
PROMETHEUS = DOCKER / "prometheus"
DOC = ROOT / "docs" / "observability.md"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "sidrec.json"


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return loaded


def queries() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard under its panel's name, as Grafana would send it: for all
    instances, with the rate interval that it computes for a scrape interval of 5 s."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "20s")
            yield f"{panel['title']} {target['refId']}", query
