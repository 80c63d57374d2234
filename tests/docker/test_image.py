"""The CPU image without a container: its build's steps in a folder and a virtual environment of
their own, then its entry point with its environment, and the command of its health check.

The one step that is not run is the installation of the pins, which takes minutes; what the tests
run with stands for it. `make docker-check` builds the image for real.
"""

import os
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from tests.docker.dockerfiles import CPU, copy, environment, instructions, last
from tests.docker.files import DOCKER, ROOT
from tests.faults.processes import eventually, free_port
from tests.system import program


class Image:
    """What the CPU image holds, below `root` where the image has it at the top."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            "PATH": f"{root}/opt/sidrec/bin:{os.environ['PATH']}",
            "HOME": str(root),
            # So that torch's threads do not fight with those of other tests.
            "SIDREC_THREADS": "1",
        }

    def moved(self, text: str) -> str:
        for path in ("/opt/sidrec", "/var/lib/sidrec", "/etc/sidrec"):
            text = text.replace(path, f"{self.root}{path}")
        return text

    def shell(self, command: str, arguments: dict[str, str]) -> None:
        done = subprocess.run(
            ["sh", "-ec", self.moved(command)],
            cwd=self.root / "src",
            env=self.environment | {key: self.moved(to) for key, to in arguments.items()},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def lend(self) -> None:
        """Puts the packages that the tests run with behind those of the image."""
        site = Path(self.site)
        for older in site.glob("setuptools*"):  # Python's own, which the pins replace
            shutil.rmtree(older)
        (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")

    @property
    def site(self) -> str:
        return self.moved(f"/opt/sidrec/lib/python{sysconfig.get_python_version()}/site-packages")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    image = Image(tmp_path_factory.mktemp("image"))
    (image.root / "src").mkdir()
    arguments: dict[str, str] = {}
    for step in (each for each in instructions(CPU) if each.stage == 0):
        if step.name == "ARG":
            name, _, value = step.value.partition("=")
            arguments[name] = value.replace("3.11", sysconfig.get_python_version())
        elif step.name == "COPY":
            copy(step, image.root / "src")
        elif step.name == "RUN" and "requirements/serve.txt" in step.value:
            image.lend()
        elif step.name == "RUN" and "apt-get" not in step.value:
            image.shell(step.plain, arguments)
    for step in (each for each in instructions(CPU) if each.name == "COPY"):
        if step.stage == instructions(CPU)[-1].stage:
            copy(step, image.root)
    (image.root / "var/lib/sidrec").mkdir(parents=True)
    shutil.rmtree(image.root / "src")
    given = {key: to for key, to in environment(CPU).items() if key != "PATH"}
    image.environment |= {key: image.moved(to) for key, to in given.items()}
    return image


def run(image: Image, words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [image.moved(word) for word in words],
        cwd=image.root / "var/lib/sidrec",
        env=image.environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_beyond_loopback_it_wants_keys(image: Image) -> None:
    done = run(image, [*last(CPU, "ENTRYPOINT").listed, *last(CPU, "CMD").listed])
    assert done.returncode == 2
    assert "set SIDREC_KEYS_FILE" in done.stderr


def test_it_has_everything_that_the_package_has(image: Image) -> None:
    for folder in ("service", "model_store", "bench"):
        tracked = subprocess.run(
            ["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        # Sources of the kernels are compiled, examples are for who builds.
        needed = [name for name in tracked if not name.endswith(".md")]
        assert len(needed) > 10
        assert [name for name in needed if not (Path(image.site) / name).exists()] == []


def test_its_kernels_run(image: Image) -> None:
    code = "from service.engine.torch.native import kernels; print(kernels()._name)"
    done = run(image, ["python", "-c", code])
    assert done.stdout.startswith(image.site), done.stderr


@pytest.fixture
def secrets(image: Image, tmp_path: Path) -> Path:
    """What docker/secrets.sh makes, and its keys where docker-compose.yml mounts them."""
    shutil.copy(DOCKER / "secrets.sh", tmp_path)
    subprocess.run(["sh", tmp_path / "secrets.sh"], check=True, capture_output=True)
    folder = tmp_path / "secrets"
    mounted = Path(image.moved("/etc/sidrec"))
    mounted.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder / "keys", mounted / "keys", dirs_exist_ok=True)
    return folder


@pytest.fixture
def redis_url(secrets: Path, tmp_path: Path) -> Iterator[str]:
    """A server with the shipped configuration; only its folder and port are others."""
    text = (DOCKER / "valkey" / "valkey.conf").read_text()
    text = text.replace("/run/secrets", str(secrets)).replace("dir /data", "dir .")
    (tmp_path / "valkey.conf").write_text(text)
    [line] = (secrets / "redis.env").read_text().splitlines()
    name, _, url = line.partition("=")
    assert name == "SIDREC_REDIS_URL"
    port = free_port()
    url = url.replace("valkey:6379", f"127.0.0.1:{port}")
    command = [program("redis-server"), str(tmp_path / "valkey.conf"), "--port", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: answers(url))
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_redis_keeps_what_it_is_told_and_asks_for_the_password(
    secrets: Path, redis_url: str
) -> None:
    password = (secrets / "redis_password").read_text()
    assert password in redis_url
    stranger = redis.Redis.from_url(redis_url.replace(password, "wrong"))
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis.Redis.from_url(redis_url) as client:
        kept = client.config_get("appendonly", "appendfsync", "save", "maxmemory-policy")
    assert kept == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }


def test_it_starts_is_healthy_answers_and_ends(
    image: Image, secrets: Path, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    settings = {
        "SIDREC_KEYS_FILE": image.moved("/etc/sidrec/keys/keys.toml"),
        "SIDREC_PORT": str(port),
        "SIDREC_REDIS_URL": redis_url,
    }
    health = last(CPU, "HEALTHCHECK").plain.removeprefix("CMD ")
    words = health.strip("[]").replace('"', "").split(", ")
    assert run(image, words, **settings).returncode == 1
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [f"{image.root}/opt/sidrec/bin/sidrec", *last(CPU, "CMD").listed],
            cwd=image.root / "var/lib/sidrec",
            env=image.environment | settings,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: run(image, words, **settings).returncode == 0, within_s=60)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            assert client.post("/v1/recommendations", json={"k": 1}).status_code == 401
            key = (secrets / "api_key").read_text()
            client.headers["Authorization"] = f"Bearer {key}"
            answer = client.post("/v1/recommendations", json={"history": ["p02327"], "k": 3})
            assert answer.json()["source"] == "model"
            client.headers["Authorization"] = f"Bearer {(secrets / 'metrics_key').read_text()}"
            assert client.get("/metrics").status_code == 200
            client.headers["Authorization"] = f"Bearer {(secrets / 'admin_key').read_text()}"
            assert client.get("/v1/models").status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0, (tmp_path / "log").read_text()


def test_secrets_that_are_there_stay(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.rglob("*") if path.is_file()}
    assert len(before) == 9
    again = ["sh", str(secrets.parent / "secrets.sh")]
    assert subprocess.run(again, check=True, capture_output=True).stdout == b""
    assert before == {path.name: path.read_bytes() for path in secrets.rglob("*") if path.is_file()}
    assert secrets.stat().st_mode & 0o777 == 0o700
