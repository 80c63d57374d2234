"""Builds the CPU image for real, without a container engine, and starts it: `make docker-check`.

buildah does it without a daemon or control groups: each step in a chroot. Needs root, and Debian's
buildah. Where no registry of images can be reached, `--stand-in` puts a Debian with its own Python,
made by debootstrap, in the place of the base image. What comes after `--` goes to buildah, such as
`--build-arg TORCH_INDEX=…` or `--secret id=pip.conf,src=pip.conf`.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from tests.docker.dockerfiles import CPU, instructions
from tests.docker.files import ROOT
from tests.faults.processes import free_port

IMAGE = "localhost/sidrec:check"
START_S = 300
# In the order of their use: the shell mounts, then becomes the container's first process. Its root
# is read-only; what the image declares as a volume is an empty folder of its user.
_START = """
set -e
root=$1 user=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
for folder in $VOLUMES; do
    mount -t tmpfs -o "uid=${user%:*},gid=${user#*:}" tmpfs "$root$folder"
done
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
exec env -i "$@"
"""


class Store:
    """Images of buildah, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--storage-driver=vfs", f"--root={folder}/all", f"--runroot={folder}/run"]

    def buildah(self, *words: str | Path, quiet: bool = True) -> str:
        """What it prints; ends the program where it fails."""
        command = ["buildah", *self._options, *map(str, words)]
        output = subprocess.PIPE if quiet else None
        done = subprocess.run(command, stdout=output, text=True, cwd=ROOT)
        if done.returncode:
            sys.exit(f"{shlex.join(command)}: {done.returncode}")
        return (done.stdout or "").strip()


def stand_in(store: Store, image: str, folder: Path) -> None:
    """Puts a Debian with Python into the place of `image`."""
    root = folder / "base"
    run("debootstrap", "--variant=minbase", "bookworm", str(root))
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        shutil.copy(name, root / name[1:])
    packages = "python3 python3-venv ca-certificates"
    run(
        *("chroot", str(root), "sh", "-ec"),
        f"apt-get update -qq; apt-get install -qq -y --no-install-recommends {packages}"
        " && ln -s /usr/bin/python3 /usr/local/bin/python && rm -rf /var/lib/apt/lists/*",
    )
    made = store.buildah("from", "scratch")
    store.buildah("add", "--quiet", made, root, "/")
    path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    store.buildah("config", "--env", f"PATH={path}", made)
    store.buildah("commit", "--quiet", "--rm", made, f"docker.io/library/{image}")
    shutil.rmtree(root)


def run(*command: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def base_image() -> str:
    """The image that the last stage begins with, without build arguments of the caller."""
    [argument] = [each.value for each in instructions(CPU) if each.name == "ARG" and each.stage < 0]
    name, _, version = argument.partition("=")
    last = [each.value for each in instructions(CPU) if each.name == "FROM"][-1]
    return last.replace(f"${{{name}}}", version)


class Container:
    """A running image: its user, entry point and environment, under a root that is read-only."""

    def __init__(self, root: str, config: dict[str, Any], variables: dict[str, str]) -> None:
        self._root = root
        self._user = config["User"]
        self._health = config["Healthcheck"]["Test"][1:]
        self._environment = config["Env"] + [f"{name}={to}" for name, to in variables.items()]
        environment = os.environ | {"VOLUMES": " ".join(config["Volumes"])}
        words = [*config["Entrypoint"], *config["Cmd"]]
        self.process = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation=private", "sh", "-c", _START, "sh"),
                *(root, self._user, *self._environment, *self._inside(words)),
            ],
            env=environment,
        )

    def _inside(self, words: list[str]) -> list[str]:
        chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin") or "chroot"
        return [chroot, f"--userspec={self._user}", self._root, *words]

    def healthy(self) -> bool:
        """Whether the health check's command, in the image, says so."""
        command = ["env", "-i", *self._environment, *self._inside(self._health)]
        return subprocess.run(command, capture_output=True).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="tests.docker.build")
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--folder", type=Path, help="where images are kept; else nowhere")
    parser.add_argument("rest", nargs="*", help="options of `buildah build`, after --")
    options = parser.parse_args()
    for program in ("buildah", *(["debootstrap"] if options.stand_in else [])):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install {program}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        store = Store(folder)
        if options.stand_in:
            stand_in(store, base_image(), folder)
        began = time.monotonic()
        build: list[str | Path] = ["build", "--isolation=chroot", "--format=docker"]
        build += [f"--tag={IMAGE}", "--file", CPU]
        store.buildah(*build, *options.rest, ".", quiet=False)
        print(f"built in {time.monotonic() - began:.0f} s")
        try_it(store)


def try_it(store: Store) -> None:
    """Starts the image, asks it, ends it. Prints what it saw, and asserts that it is right."""
    config = json.loads(store.buildah("inspect", "--type=image", IMAGE))["Docker"]["config"]
    made = store.buildah("from", "--pull=never", IMAGE)
    root = store.buildah("mount", made)
    size = sum(path.lstat().st_blocks * 512 for path in Path(root).rglob("*"))
    print(f"{size / 1e9:.2f} GB")
    port = free_port()
    variables = {"SIDREC_PORT": str(port), "SIDREC_ALLOW_ANONYMOUS": "true"}
    began = time.monotonic()
    container = Container(root, config, variables)
    try:
        while not container.healthy():
            assert container.process.poll() is None, "it ended"
            assert time.monotonic() < began + START_S, "it was never healthy"
            time.sleep(0.5)
        print(f"healthy after {time.monotonic() - began:.0f} s, as user {config['User']}")
        asked = {"history": ["p02327", "p02147"], "k": 3}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/recommendations", json=asked, timeout=60)
        assert answer.json()["source"] == "model", answer.text
        print(f"answers by the model in {answer.json()['timing_ms']['total']:.0f} ms")
        mapped = Path(f"/proc/{container.process.pid}/maps").read_text()
        assert "/_kernels." in mapped, "torch's operators instead of the kernels"
        with open(f"/proc/{container.process.pid}/status") as status:
            uids = next(line for line in status if line.startswith("Uid:")).split()[1:]
        assert set(uids) == {config["User"].partition(":")[0]}
    finally:
        container.process.send_signal(signal.SIGTERM)
        code = container.process.wait(60)
    assert code == 0, f"ended with {code}"
    assert not container.healthy()
    print("ended with 0 on SIGTERM; the health check fails from then on")


if __name__ == "__main__":
    main()
