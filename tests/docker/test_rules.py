"""The alert rules: they parse, each fires when it should, and people are told what to do."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.docker.files import DOC, DOCKER, PROMETHEUS
from tests.system import program


def promtool(*arguments: str | Path, cwd: Path = PROMETHEUS) -> str:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_configuration_and_rules_are_right(tmp_path: Path) -> None:
    folder = shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    (folder / "metrics_key").write_text("sidrec_x")  # compose brings it as a secret
    assert f"{len(rules())} rules found" in promtool(
        "check", "config", "prometheus.yml", cwd=folder
    )


def test_each_alert_fires_and_a_healthy_service_has_none() -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test.get("alert_rule_test", ())
        if case.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in rules()}


def test_each_alert_is_explained() -> None:
    explained = re.findall(r"^\| `(Sidrec\w+)` \|", DOC.read_text(), flags=re.M)
    assert explained == [rule["alert"] for rule in rules()]
    assert all(rule["labels"]["severity"] in ("page", "ticket") for rule in rules())


def test_what_grafana_is_given_is_where_it_looks() -> None:
    [provider] = yaml.safe_load(
        (DOCKER / "grafana/provisioning/dashboards/sidrec.yml").read_text()
    )["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
