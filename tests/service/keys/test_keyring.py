"""The keys in force: found by their secret, and replaced when their file is."""

import asyncio
import hmac
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.errors import Unidentified
from service.keys.file import KeysInvalid
from service.keys.keyring import Keyring
from tests.service.keys.made import key, write

A, B = key("a", "secret-a", "read"), key("b", "secret-b", "write")


class Told:
    """What a keyring said of each reading."""

    def __init__(self) -> None:
        self.readings: list[tuple[int, bool]] = []

    def __call__(self, keys: int, usable: bool) -> None:
        self.readings.append((keys, usable))


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        await asyncio.sleep(0.005)
        assert time.monotonic() < deadline


def test_a_key_is_found_by_its_secret() -> None:
    keyring = Keyring([A, B])
    assert keyring.find("secret-a") is A
    assert keyring.find("secret-b") is B
    for wrong in ("", "secret", "secret-A", A.sha256, "secret-a ", "\udcff", "é"):
        with pytest.raises(Unidentified) as caught:
            keyring.find(wrong)
        assert caught.value.reason == "unknown"


def test_an_expired_key_is_told_so() -> None:
    now = datetime.now(UTC)
    soon = key("soon", "s", "read", expires=now + timedelta(hours=1))
    late = key("late", "t", "read", expires=now - timedelta(seconds=1))
    keyring = Keyring([soon, late])
    assert keyring.find("s") is soon
    with pytest.raises(Unidentified, match="expired") as caught:
        keyring.find("t")
    assert caught.value.reason == "expired"


def test_every_key_is_compared_and_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    original = hmac.compare_digest

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return original(one, other)

    keyring = Keyring([A, B])
    monkeypatch.setattr("service.keys.keyring.hmac.compare_digest", compare)
    keyring.find("secret-a")
    with pytest.raises(Unidentified):
        keyring.find("secret-c")
    assert compared == [A.sha256, B.sha256] * 2


async def test_a_new_file_is_taken_over_and_a_broken_one_is_not(tmp_path: Path) -> None:
    told = Told()
    file = write(tmp_path / "keys.toml", A)
    keyring = Keyring([B], file, reloaded=told)
    with capture_logs() as lines:
        async with keyring.kept_fresh(0.005):
            c = key("c", "secret-c", "read")
            write(file, A, c)
            await until(lambda: len(told.readings) == 2)
            assert keyring.find("secret-c") == c
            write(file, c)
            await until(lambda: len(told.readings) == 3)
            with pytest.raises(Unidentified):
                keyring.find("secret-a")
            file.write_text("[[key]]\nname = 'half")
            await until(lambda: len(told.readings) == 4)
            await asyncio.sleep(0.05)
            assert keyring.find("secret-c") == c
            file.unlink()
            await until(lambda: len(told.readings) == 5)
            assert keyring.find("secret-c") == c
            write(file, A)
            await until(lambda: len(told.readings) == 6)
            assert keyring.find("secret-a") == A
            assert keyring.find("secret-b") == B
        write(file)  # nobody looks any more
        await asyncio.sleep(0.05)
    assert told.readings == [(2, True), (3, True), (2, True), (2, False), (2, False), (2, True)]
    assert [line["event"] for line in lines] == [
        "keys_loaded",
        "keys_loaded",
        "keys_unusable",  # once, not at each look
        "keys_unusable",
        "keys_loaded",
    ]
    assert "not TOML" in lines[2]["problems"][0]
    assert lines[0]["keys"] == ["b", "a", "c"]


def test_a_link_to_another_file_is_noticed(tmp_path: Path) -> None:
    """As Kubernetes replaces what it mounts."""
    write(tmp_path / "one", A)
    write(tmp_path / "two", B)
    same = (tmp_path / "one").stat().st_mtime_ns
    os.utime(tmp_path / "two", ns=(same, same))
    link = tmp_path / "keys.toml"
    link.symlink_to(tmp_path / "one")
    keyring = Keyring((), link)
    assert keyring.find("secret-a") == A
    fresh = tmp_path / "fresh"
    fresh.symlink_to(tmp_path / "two")
    fresh.replace(link)
    keyring.look()
    assert keyring.find("secret-b") == B


def test_a_file_that_is_broken_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(KeysInvalid, match="No such file"):
        Keyring((), tmp_path / "none")
    file = write(tmp_path / "keys.toml", A)
    with pytest.raises(KeysInvalid, match="two keys are called a"):
        Keyring([A], file)


def test_an_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    with pytest.raises(Unidentified):
        Keyring((), write(tmp_path / "keys.toml")).find("secret-a")
