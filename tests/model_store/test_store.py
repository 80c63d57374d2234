"""Versions, aliases and garbage: what a reader sees while others publish, promote and clean up."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_store.bundle import MANIFEST, Bundle, validate
from model_store.errors import StoreError
from model_store.store import Store
from tests.tiny import make_bundle, random_items


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("good"), random_items(20, (4, 4)), name="shop")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def filler(good: Bundle) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        shutil.copytree(good.path, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()

    return fill


def publish(store: Store, good: Bundle, times: int = 1) -> None:
    for _ in range(times):
        store.publish(good.manifest, filler(good))


class TestReferences:
    def test_number_alias_and_newest(self, store: Store, good: Bundle) -> None:
        publish(store, good, 3)
        store.promote("shop", 2)
        assert store.resolve("shop") == ("shop", 3)
        assert store.resolve("shop@1") == ("shop", 1)
        assert store.resolve("shop@champion") == ("shop", 2)
        assert store.fetch("shop@champion") == store.path("shop", 2)
        assert store.names() == ["shop"]

    @pytest.mark.parametrize(
        ("reference", "complaint"),
        [
            ("nobody", "no bundle 'nobody'"),
            ("shop@7", "no version 7, only 1"),
            ("shop@hero", "no alias 'hero', only champion"),
            ("shop@../1", "no alias"),
            ("../shop", "not the name of a bundle"),
        ],
    )
    def test_what_is_not_there_is_named(
        self, store: Store, good: Bundle, reference: str, complaint: str
    ) -> None:
        publish(store, good)
        store.promote("shop", 1)
        with pytest.raises(StoreError, match=complaint):
            store.resolve(reference)


class TestAliases:
    def test_rollbacks_take_back_one_promotion_each(self, store: Store, good: Bundle) -> None:
        publish(store, good, 3)
        for version in (1, 2, 2, 3):
            store.promote("shop", version)
        assert store.rollback("shop").version == 2
        assert store.promote("shop", 3).previous == 2
        assert store.rollback("shop").version == 2
        assert store.rollback("shop").version == 1
        with pytest.raises(StoreError, match="never named another"):
            store.rollback("shop")
        steps = [(s.action, s.version) for s in store.aliases("shop")["champion"].history]
        assert steps == [
            *(("promote", 1), ("promote", 2), ("promote", 3), ("rollback", 2)),
            *(("promote", 3), ("rollback", 2), ("rollback", 1)),
        ]

    def test_aliases_do_not_touch_each_other(self, store: Store, good: Bundle) -> None:
        publish(store, good, 2)
        store.promote("shop", 1, "champion")
        store.promote("shop", 2, "challenger")
        assert store.resolve("shop@champion") == ("shop", 1)
        assert store.resolve("shop@challenger") == ("shop", 2)

    @pytest.mark.parametrize("alias", ["3", "../x", "Champion", ""])
    def test_an_alias_needs_a_name(self, store: Store, good: Bundle, alias: str) -> None:
        publish(store, good)
        with pytest.raises(StoreError, match="not the name of an alias"):
            store.promote("shop", 1, alias)

    def test_only_a_complete_version_is_promoted(self, store: Store, good: Bundle) -> None:
        publish(store, good, 2)
        (store.path("shop", 2) / MANIFEST).unlink()
        for version in (2, 9):
            with pytest.raises(StoreError, match=f"no version {version}, only 1"):
                store.promote("shop", version)
        assert store.aliases("shop") == {}

    def test_a_rollback_to_what_is_gone_is_refused(self, store: Store, good: Bundle) -> None:
        publish(store, good, 2)
        store.promote("shop", 1)
        store.promote("shop", 2)
        shutil.rmtree(store.path("shop", 1))
        with pytest.raises(StoreError, match="no version 1"):
            store.rollback("shop")
        assert store.resolve("shop@champion") == ("shop", 2)

    def test_a_broken_alias_file_is_named(self, store: Store, good: Bundle) -> None:
        publish(store, good)
        store.promote("shop", 1)
        (store.root / "shop/aliases/champion.json").write_text("{")
        with pytest.raises(StoreError, match=r"champion\.json: not an alias"):
            store.resolve("shop@champion")


class TestCollect:
    def test_keeps_new_aliased_and_what_a_rollback_needs(self, store: Store, good: Bundle) -> None:
        publish(store, good, 8)
        for version in (1, 3, 5):
            store.promote("shop", version)
        assert store.collect("shop", keep=2) == [1, 2, 4, 6]
        assert store.versions("shop") == [3, 5, 7, 8]
        assert store.rollback("shop").version == 3
        assert not list(store.root.glob(".trash-*"))

    def test_the_newest_stays_so_that_its_number_is_not_given_again(
        self, store: Store, good: Bundle
    ) -> None:
        publish(store, good, 2)
        assert store.collect("shop", keep=0) == [1]
        assert store.publish(good.manifest, filler(good)) == store.path("shop", 3)

    def test_an_open_file_stays_readable(self, store: Store, good: Bundle) -> None:
        publish(store, good, 2)
        path = store.path("shop", 1) / "model/model.safetensors"
        expected = path.read_bytes()
        with path.open("rb") as file:
            assert store.collect("shop", keep=1) == [1]
            assert not path.exists()
            assert file.read() == expected

    def test_sweeps_what_killed_publishers_left_but_no_work_in_progress(
        self, store: Store, good: Bundle
    ) -> None:
        publish(store, good)
        for name in (".staging-old", ".staging-new"):
            (store.root / name).mkdir()
            (store.root / name / "part").touch()
        long_ago = time.time() - 3 * 24 * 3600
        for path in (store.root / ".staging-old", store.root / ".staging-old/part"):
            os.utime(path, (long_ago, long_ago))
        store.collect("shop")
        assert [p.name for p in store.root.glob(".staging-*")] == [".staging-new"]

    def test_never_takes_what_is_being_promoted(self, store: Store, good: Bundle) -> None:
        """A promotion against a collection: it succeeds and the version stays, or is refused."""
        publish(store, good)
        for _ in range(12):
            publish(store, good, 2)
            old = store.versions("shop")[0]
            start, refused = threading.Barrier(2), []

            def promote(old: int = old, start: threading.Barrier = start) -> None:
                start.wait()
                try:
                    store.promote("shop", old)
                except StoreError:
                    refused.append(old)  # noqa: B023 (joined below)

            thread = threading.Thread(target=promote)
            thread.start()
            start.wait()
            time.sleep(random.random() * 2e-3)
            gone = store.collect("shop", keep=1)
            thread.join()
            assert (old in gone) == bool(refused)
            if not refused:
                assert validate(store.fetch("shop@champion")) == []


def test_readers_see_only_complete_versions(store: Store, good: Bundle) -> None:
    """Two publish, one promotes, and whatever a reader resolves is whole."""
    publish(store, good)
    store.promote("shop", 1)
    done, seen, faults = threading.Event(), set[int](), list[str]()

    def read() -> None:
        while not done.is_set():
            for version in store.versions("shop"):
                manifest = (store.path("shop", version) / MANIFEST).read_bytes()
                if not manifest.endswith(b"}\n"):
                    faults.append(f"half a manifest in {version}")
            name, version = store.resolve("shop@champion")
            seen.add(version)
            faults.extend(validate(store.path(name, version)))

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=publish, args=(store, good, 8)) for _ in range(2)]
    for thread in (*readers, *writers):
        thread.start()
    while any(thread.is_alive() for thread in writers):
        store.promote("shop", store.versions("shop")[-1])
        time.sleep(0.01)
    done.set()
    for thread in (*readers, *writers):
        thread.join()
    assert faults == []
    assert store.versions("shop") == list(range(1, 18))
    assert len(seen) > 2


PUBLISHER = """
import shutil, sys
from pathlib import Path
from model_store.bundle import MANIFEST, Bundle
from model_store.store import Store

good = Bundle.load(sys.argv[1])

def fill(folder):
    shutil.copytree(good.path, folder, dirs_exist_ok=True)
    (folder / MANIFEST).unlink()

print("ready", flush=True)
while True:
    Store(sys.argv[2]).publish(good.manifest, fill)
    print("published", flush=True)
"""


@pytest.fixture
def publisher(store: Store, good: Bundle) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(good.path), str(store.root)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_a_killed_publisher_leaves_nothing_visible(
    store: Store, good: Bundle, publisher: "subprocess.Popen[str]"
) -> None:
    """kill -9 while files are half copied: the folder is there, the version is not."""
    assert publisher.stdout
    assert publisher.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if list(store.root.glob(".staging-*/model/config.json")):
            break
    os.kill(publisher.pid, signal.SIGKILL)
    publisher.wait()
    finished = publisher.stdout.read().count("published\n")
    versions = store.versions("shop")
    # One more than announced where the signal came between the rename and the announcement.
    assert len(versions) in (finished, finished + 1)
    assert all(validate(store.path("shop", version)) == [] for version in versions)
    assert store.publish(good.manifest, filler(good)) == store.path("shop", len(versions) + 1)
