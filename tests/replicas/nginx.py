"""A real nginx with the configuration that is shipped, before services that a test names."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.docker.files import DOCKER
from tests.faults.processes import eventually, free_port
from tests.system import program

SHIPPED = DOCKER / "nginx"


@contextmanager
def balanced(folder: Path, replicas: Sequence[str], *, within_s: float = 20) -> Iterator[str]:
    """The URL of an nginx before the services at these URLs. Only the two files that one is told to
    change are not as they are shipped, and of those only addresses and the port."""
    (folder / "tmp").mkdir(parents=True)
    shutil.copy(SHIPPED / "nginx.conf", folder)
    port = free_port()
    shipped = (SHIPPED / "listen.conf").read_text()
    (folder / "listen.conf").write_text(shipped.replace("8080", f"127.0.0.1:{port}"))
    lines = (SHIPPED / "replicas.conf").read_text()
    for number, url in enumerate(replicas, start=1):
        assert f"sidrec-{number}:8000" in lines
        lines = lines.replace(f"sidrec-{number}:8000", urlsplit(url).netloc)
    (folder / "replicas.conf").write_text(lines)
    command = [program("nginx"), "-p", str(folder), "-c", "nginx.conf"]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    with (folder / "log").open("w") as log:
        # In the foreground: it ends with the test. Who is root stays so, to write into `folder`.
        more = "daemon off;" + (" user root;" if os.getuid() == 0 else "")
        server = subprocess.Popen([*command, "-g", more], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: _answers(url))
        yield url
    finally:
        server.terminate()
        server.wait(20)


def _answers(url: str) -> bool:
    try:
        httpx.get(f"{url}/metrics")  # nginx's own answer
    except httpx.TransportError:
        return False
    return True
