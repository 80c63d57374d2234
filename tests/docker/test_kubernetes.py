"""The manifests as `kubectl kustomize` renders them: right by Kubernetes' schemas, and in agreement
with the images, the settings, the routes and the metrics."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.engine_queue import EngineQueue
from service.metrics import Metrics
from service.settings import Settings
from tests.docker.dockerfiles import CPU, GPU, environment, instructions, last
from tests.docker.files import DOCKER, PROMETHEUS, ROOT
from tests.docker.test_dockerfiles import VARIABLES

KUBERNETES = DOCKER / "kubernetes"
COMPONENTS = sorted(
    path.parent for path in (KUBERNETES / "components").glob("*/kustomization.yaml")
)
ADAPTER = KUBERNETES / "components/queue-autoscaling/prometheus-adapter.yaml"
DOC = ROOT / "docs" / "kubernetes.md"
# The oldest and the newest that the deployment is meant for: preStop's `sleep` came with 1.30.
VERSIONS = ("1.30", "1.37")

Manifest = dict[str, Any]


def kubectl(*arguments: str | Path) -> str:
    program = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(folder: Path) -> dict[str, Manifest]:
    """The objects of a kustomization by their kind."""
    objects = list(yaml.safe_load_all(kubectl("kustomize", folder)))
    assert len({each["kind"] for each in objects}) == len(objects)
    return {each["kind"]: each for each in objects}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """The overlay for CPUs with every component."""
    copy = tmp_path_factory.mktemp("everything") / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    whole = {
        "resources": ["../cpu"],
        "components": [f"../../components/{path.name}" for path in COMPONENTS],
    }
    (copy / "overlays/all").mkdir()
    (copy / "overlays/all/kustomization.yaml").write_text(yaml.safe_dump(whole))
    return rendered(copy / "overlays/all")


@pytest.fixture(scope="module", params=["cpu", "gpu", "everything"])
def objects(request: pytest.FixtureRequest, everything: dict[str, Manifest]) -> dict[str, Manifest]:
    if request.param == "everything":
        return everything
    return rendered(KUBERNETES / "overlays" / request.param)


def pod(objects: dict[str, Manifest]) -> Manifest:
    spec: Manifest = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(objects: dict[str, Manifest]) -> Manifest:
    [only] = pod(objects)["containers"]
    found: Manifest = only
    return found


def settings(objects: dict[str, Manifest]) -> dict[str, str]:
    """What the pods are given, where it is known here."""
    data: dict[str, str] = objects["ConfigMap"]["data"]
    return data


@pytest.mark.parametrize("version", VERSIONS)
def test_they_are_right(objects: dict[str, Manifest], version: str) -> None:
    ours = [each for kind, each in objects.items() if kind != "ServiceMonitor"]
    assert len(ours) == 6
    for each in ours:
        kubernetes_validate.validate(each, version, strict=True)


def test_what_is_wrong_is_found() -> None:
    wrong = yaml.safe_load((KUBERNETES / "base/disruption-budget.yaml").read_text())
    wrong["spec"]["maxUnavailble"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_every_file_is_used() -> None:
    for kustomization in KUBERNETES.rglob("kustomization.yaml"):
        named = set(re.findall(r"\b[\w-]+\.yaml\b", kustomization.read_text()))
        beside = {path.name for path in kustomization.parent.glob("*.yaml")}
        assert beside - named - {"kustomization.yaml"} <= {"secrets.example.yaml", ADAPTER.name}
    assert "secrets" not in (KUBERNETES / "base/kustomization.yaml").read_text()


def test_selectors_mean_the_pods(objects: dict[str, Manifest]) -> None:
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(
            each["labelSelector"]["matchLabels"]
            for each in pod(objects)["topologySpreadConstraints"]
        ),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    deployment = objects["Deployment"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]


def test_clients_are_let_in_by_their_label_alone(objects: dict[str, Manifest]) -> None:
    [rule] = objects["NetworkPolicy"]["spec"]["ingress"]
    of_pods = [each["podSelector"] for each in rule["from"] if "podSelector" in each]
    assert of_pods == [{"matchLabels": {"sidrec/client": "true"}}]
    assert rule["ports"] == [{"port": "http"}]


def test_settings_are_real_and_taken(
    objects: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(objects)
    [source] = container(objects)["envFrom"]
    assert source["configMapRef"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    names = {each["name"] for each in container(objects)["env"]}
    assert names | set(given) <= VARIABLES
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    taken = Settings()
    assert taken.shutdown_timeout_s == int(given["SIDREC_SHUTDOWN_TIMEOUT_S"])


def test_kubernetes_sets_no_setting_of_ours(objects: dict[str, Manifest]) -> None:
    # For each Service NAME of the namespace it sets NAME_PORT, NAME_SERVICE_HOST and others.
    prefix = objects["Service"]["metadata"]["name"].upper().replace("-", "_")
    assert not [name for name in VARIABLES if name.startswith(f"{prefix}_")]
    assert pod(objects)["enableServiceLinks"] is False


def test_ports_and_paths_are_real(objects: dict[str, Manifest]) -> None:
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]
    [port] = container(objects)["ports"]
    image = environment(GPU if "gpu" in container(objects)["image"] else CPU)
    assert str(port["containerPort"]) == image["SIDREC_PORT"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container(objects)[probe]["httpGet"]
        assert asked["port"] == port["name"]
        assert not paths[asked["path"]]["get"]["security"], "a probe has no key"
    [served] = objects["Service"]["spec"]["ports"]
    assert served["targetPort"] == port["name"]


def test_what_is_in_flight_may_finish(objects: dict[str, Manifest]) -> None:
    sleep = container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]
    readiness = container(objects)["readinessProbe"]
    # By then it is out of every balancer, also of those that only look at readiness.
    assert sleep >= readiness["periodSeconds"] * readiness["failureThreshold"]
    drain = int(settings(objects)["SIDREC_SHUTDOWN_TIMEOUT_S"])
    assert pod(objects)["terminationGracePeriodSeconds"] >= sleep + drain + 10


def test_pods_are_restricted(objects: dict[str, Manifest]) -> None:
    """What the Pod Security Standard `restricted` asks for, and a root that is not written to."""
    whole = pod(objects)["securityContext"]
    user, _, group = last(CPU, "USER").value.partition(":")
    assert (whole["runAsUser"], whole["runAsGroup"]) == (int(user), int(group))
    assert whole["runAsNonRoot"] is True
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(objects)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(objects)["automountServiceAccountToken"] is False
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    assert {kind for each in pod(objects)["volumes"] for kind in each if kind != "name"} <= allowed


def test_what_is_written_to_is_mounted(objects: dict[str, Manifest]) -> None:
    mounts = {each["mountPath"]: each for each in container(objects)["volumeMounts"]}
    assert {each["name"] for each in mounts.values()} == {
        each["name"] for each in pod(objects)["volumes"]
    }
    written = {path for path, each in mounts.items() if not each.get("readOnly")}
    assert written - {"/dev/shm"} == {last(CPU, "WORKDIR").value, "/tmp"}
    keys = Path(settings(objects)["SIDREC_KEYS_FILE"])
    assert mounts[str(keys.parent)]["readOnly"] is True


def test_memory_is_asked_for_and_kept(objects: dict[str, Manifest]) -> None:
    resources = container(objects)["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert "cpu" not in resources["limits"]
    gpu = "gpu" in container(objects)["image"]
    assert ("nvidia.com/gpu" in resources["limits"]) == gpu
    if gpu:
        assert ("SIDREC_ENGINE", "vllm") in environment(GPU).items()


def metrics_of_pods(objects: dict[str, Manifest]) -> set[str]:
    metrics = objects["HorizontalPodAutoscaler"]["spec"]["metrics"]
    return {each["pods"]["metric"]["name"] for each in metrics if each["type"] == "Pods"}


def test_it_scales_on_metrics_that_there_are() -> None:
    scaled = metrics_of_pods(rendered(KUBERNETES / "overlays" / "gpu"))
    exposed = Metrics(lambda: 0, 1, EngineQueue(0)).exposition().decode()
    gauges = {
        family.name: family.samples
        for family in text_string_to_metric_families(exposed)
        if family.type == "gauge"
    }
    assert len(scaled) == 2
    assert scaled <= set(gauges)
    # One value for each pod: with labels there would be several.
    assert [gauges[name][0].labels for name in scaled] == [{}, {}]
    rules = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    assert {rule["seriesQuery"].partition("{")[0] for rule in rules} == scaled
    for rule in rules:
        assert {"namespace", "pod"} == set(rule["resources"]["overrides"])
        assert re.findall(r"<<\.(\w+)>>", rule["metricsQuery"]) == [
            *("GroupBy", "Series", "LabelMatchers")
        ]


def test_prometheus_scrapes_it_under_the_name_that_dashboard_and_alerts_use(
    everything: dict[str, Manifest],
) -> None:
    monitor = everything["ServiceMonitor"]["spec"]
    service = everything["Service"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"
    [job] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    assert service["metadata"]["labels"][monitor["jobLabel"]] == job["job_name"]


def secrets_of(objects: dict[str, Manifest]) -> dict[str, str]:
    """The key that is read of each Secret which the objects name."""
    wanted = {
        each["valueFrom"]["secretKeyRef"]["name"]: each["valueFrom"]["secretKeyRef"]["key"]
        for each in container(objects)["env"]
        if "secretKeyRef" in each["valueFrom"]
    }
    keys = Path(settings(objects)["SIDREC_KEYS_FILE"]).name
    wanted |= {
        each["secret"]["secretName"]: keys for each in pod(objects)["volumes"] if "secret" in each
    }
    if monitor := objects.get("ServiceMonitor"):
        credentials = monitor["spec"]["endpoints"][0]["authorization"]["credentials"]
        wanted[credentials["name"]] = credentials["key"]
    return wanted


def test_the_commands_of_the_docs_make_the_secrets(
    objects: dict[str, Manifest], tmp_path: Path
) -> None:
    text = DOC.read_text().replace("\\\n", " ")
    commands = re.findall(r"^kubectl (create secret .+)$", text, flags=re.M)
    made: dict[str, set[str]] = {}
    for name in ("keys.toml", "metrics_key"):
        (tmp_path / name).write_text("x")
    for command in commands:
        words = shlex.split(command.replace("docker/secrets/keys", str(tmp_path)))
        words = [word.replace("docker/secrets", str(tmp_path)) for word in words]
        secret = yaml.safe_load(kubectl(*words, "--dry-run=client", "-o", "yaml"))
        kubernetes_validate.validate(secret, VERSIONS[-1], strict=True)
        made[secret["metadata"]["name"]] = set(secret["data"])
    for name, key in secrets_of(objects).items():
        assert key in made[name]


def test_the_example_shows_the_same_secrets() -> None:
    shown = list(yaml.safe_load_all((KUBERNETES / "base/secrets.example.yaml").read_text()))
    for each in shown:
        kubernetes_validate.validate(each, VERSIONS[-1], strict=True)
    wanted = secrets_of(rendered(KUBERNETES / "overlays" / "cpu"))
    assert {each["metadata"]["name"]: next(iter(each["stringData"])) for each in shown} == wanted


def test_commands_of_the_docs_name_what_there_is() -> None:
    for path in re.findall(r"docker/kubernetes[\w./-]*", DOC.read_text()):
        assert (ROOT / path.rstrip(".")).exists(), path


def test_images_are_those_of_the_dockerfiles(objects: dict[str, Manifest]) -> None:
    name, _, tag = container(objects)["image"].partition(":")
    assert name == "sidrec"
    assert re.fullmatch(r"\d+\.\d+\.\d+(-gpu)?", tag)
    assert instructions(GPU if tag.endswith("-gpu") else CPU)
