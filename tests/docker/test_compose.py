"""docker-compose.yml: it is right by Compose's rules, and what it names exists."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyOptions, parse_duration
from compose_spec.models import ComposeSpecification, Service

from tests.docker.dockerfiles import CPU, GPU, environment, instructions, last
from tests.docker.files import DASHBOARD, DOCKER, PROMETHEUS, ROOT
from tests.docker.test_dockerfiles import VARIABLES

FILE = ROOT / "docker-compose.yml"
API = ("api", "api-gpu")
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+):-(?P<default>[^}]*)\})")


def interpolated(text: str, **variables: str) -> str:
    """Compose's interpolation, as far as the file uses it."""

    def value(found: re.Match[str]) -> str:
        return (variables.get(found["name"]) or found["default"]) if found["name"] else "$"

    return _VARIABLE.sub(value, text)


def parsed(text: str) -> dict[str, Any]:
    """The file with its merges applied. Raises ValueError where Compose's rules do not hold."""
    compose = PyOptions(apply_merge=True).from_yaml(interpolated(text))
    compose.validate()
    whole: dict[str, Any] = compose.to_dict()
    ComposeSpecification.model_validate(whole)
    for name, service in whole["services"].items():
        if unknown := set(service) - set(Service.model_fields):
            raise ValueError(f"{name}: {unknown}")
    return whole


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = parsed(FILE.read_text())["services"]
    return found


def test_it_is_right() -> None:
    assert set(parsed(FILE.read_text())["services"]) >= {*API, "valkey", "prometheus", "grafana"}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("condition: service_healthy", "condition: healthy"),
        ("capabilities: [gpu]", "capabilities: gpu"),
        ("stop_grace_period: 45s", "stop_grace_period: soon"),
        ("- redis_password\n", "- redis_pass\n"),
        ("- state:/", "- stat:/"),
        ("    user: valkey", "    usr: valkey"),
    ],
)
def test_what_is_wrong_is_found(right: str, wrong: str) -> None:
    text = FILE.read_text()
    assert text.count(right) == 1
    with pytest.raises(ValueError, match=r".+"):
        parsed(text.replace(right, wrong))


def test_nothing_is_interpolated_in_another_way() -> None:
    rest = _VARIABLE.sub("", FILE.read_text())
    assert "$" not in rest


def test_profiles(services: dict[str, dict[str, Any]]) -> None:
    chosen = {name: service.get("profiles") for name, service in services.items()}
    always = {name for name, profiles in chosen.items() if profiles is None}
    assert always == {"valkey", "prometheus", "grafana"}
    assert (chosen["api"], chosen["api-gpu"], chosen["load"]) == (["cpu"], ["gpu"], ["load"])


def test_what_is_mounted_is_there(services: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    shutil.copytree(DOCKER, tmp_path / "docker", ignore=shutil.ignore_patterns("secrets"))
    subprocess.run(["sh", tmp_path / "docker" / "secrets.sh"], check=True, capture_output=True)
    whole = parsed(FILE.read_text())
    binds = [
        volume.partition(":")[0]
        for service in services.values()
        for volume in service.get("volumes", ())
        if volume.startswith("./")
    ]
    secrets = [each["file"] for each in whole["secrets"].values()]
    files = [each for name in API for each in services[name]["env_file"]]
    assert len(binds) > 6
    for path in (*binds, *secrets, *files):
        assert (tmp_path / path).exists(), path
    names = set(whole["volumes"])
    used = {
        volume.partition(":")[0]
        for service in services.values()
        for volume in service.get("volumes", ())
        if not volume.startswith("./")
    }
    assert used == names


def test_git_and_builds_see_no_secret() -> None:
    ignored = ["git", "check-ignore", "-q", "docker/secrets/api_key"]
    assert subprocess.run(ignored, cwd=ROOT).returncode == 0


def test_images_name_their_version(services: dict[str, dict[str, Any]]) -> None:
    foreign = {
        name: service["image"] for name, service in services.items() if "build" not in service
    }
    tags = {name: image.partition(":")[2] for name, image in foreign.items()}
    assert all(re.match(r"v?\d+\.\d+\.\d+", tag) for tag in tags.values()), tags


@pytest.mark.parametrize(("name", "path"), [("api", CPU), ("api-gpu", GPU)])
def test_the_service_fits_its_image(
    services: dict[str, dict[str, Any]], name: str, path: Path
) -> None:
    service = services[name]
    assert ROOT / service["build"]["dockerfile"] == path
    declared = {each.value.partition("=")[0] for each in instructions(path) if each.name == "ARG"}
    assert set(service["build"].get("args", ())) <= declared
    assert set(service["environment"]) <= VARIABLES
    [published] = service["ports"]
    assert published == f"127.0.0.1:8000:{environment(path)['SIDREC_PORT']}"
    writable = [each.split(":")[1] for each in service["volumes"] if not each.endswith(":ro")]
    assert writable == [environment(path)["SIDREC_STATE_DIR"]]
    assert service["read_only"] is True


@pytest.mark.parametrize("name", API)
def test_it_may_finish_before_it_is_killed(services: dict[str, dict[str, Any]], name: str) -> None:
    service = services[name]
    grace = parse_duration(service["stop_grace_period"])
    assert grace > float(service["environment"]["SIDREC_SHUTDOWN_TIMEOUT_S"]) + 5
    assert last(CPU, "STOPSIGNAL").value == "SIGTERM"


def test_only_the_service_could_be_reached_from_elsewhere() -> None:
    opened = interpolated(FILE.read_text(), SIDREC_BIND="0.0.0.0")
    ports = [
        port
        for each in yaml.safe_load(opened)["services"].values()
        for port in each.get("ports", ())
    ]
    outside = {str(port) for port in ports if not str(port).startswith("127.0.0.1:")}
    assert outside == {"0.0.0.0:8000:8000"}


def test_prometheus_finds_its_files_and_the_service(services: dict[str, dict[str, Any]]) -> None:
    prometheus = services["prometheus"]
    mounted = {volume.split(":")[1] for volume in prometheus["volumes"]}
    mounted |= {each["target"] for each in prometheus["secrets"]}
    [flag] = [each for each in prometheus["command"] if each.startswith("--config.file=")]
    configuration = Path(flag.partition("=")[2])
    given = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    [job] = given["scrape_configs"]
    named = [
        *given["rule_files"],
        job["authorization"]["credentials_file"],
        *job["file_sd_configs"][0]["files"],
    ]
    assert {str(configuration), *(str(configuration.parent / name) for name in named)} <= mounted
    [targets] = yaml.safe_load((PROMETHEUS / "targets.yml").read_text())
    [(host, port)] = [target.split(":") for target in targets["targets"]]
    for name in API:
        assert services[name]["networks"]["default"]["aliases"] == [host]
        assert services[name]["ports"][0].endswith(f":{port}")


def test_grafana_finds_its_files(services: dict[str, dict[str, Any]]) -> None:
    grafana = services["grafana"]
    mounted = dict(volume.split(":")[:2] for volume in grafana["volumes"] if volume[0] == ".")
    assert mounted["./docker/grafana/provisioning"] == "/etc/grafana/provisioning"
    provider = DOCKER / "grafana/provisioning/dashboards/sidrec.yml"
    [folder] = [
        each["options"]["path"] for each in yaml.safe_load(provider.read_text())["providers"]
    ]
    assert mounted[f"./{DASHBOARD.parent.relative_to(ROOT)}"] == folder
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home) == Path(folder) / DASHBOARD.name
    source = DOCKER / "grafana/provisioning/datasources/prometheus.yml"
    [prometheus] = yaml.safe_load(source.read_text())["datasources"]
    assert prometheus["url"] == "http://prometheus:9090"
    assert services["prometheus"]["ports"][0].endswith(":9090")


def test_the_health_check_of_valkey_is_what_a_shell_can_run(tmp_path: Path) -> None:
    whole = yaml.safe_load(interpolated(FILE.read_text()))
    kind, command = whole["services"]["valkey"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    (tmp_path / "redis_password").write_text("secret")
    client = tmp_path / "valkey-cli"
    client.write_text('#!/bin/sh\n[ "$REDISCLI_AUTH $*" = "secret ping" ] && echo PONG\n')
    client.chmod(0o755)
    moved = f"PATH={shlex.quote(str(tmp_path))}:$PATH; " + command.replace(
        "/run/secrets", str(tmp_path)
    )
    assert subprocess.run(["sh", "-c", moved]).returncode == 0
    (tmp_path / "redis_password").write_text("wrong")
    assert subprocess.run(["sh", "-c", moved]).returncode == 1
