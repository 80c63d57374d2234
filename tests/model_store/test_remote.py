"""Stores behind fsspec addresses: uploaded whole or not at all, fetched and checked."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from model_store.bundle import MANIFEST, Bundle
from model_store.errors import BundleError, StoreError
from model_store.remote import RemoteStore, open_store
from model_store.store import Store, create_bundle
from tests.model_store.test_store import filler
from tests.tiny import TEMPLATE, make_bundle, random_items, write_items, write_model


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("good"), random_items(20, (4, 4)), name="shop")


@pytest.fixture(params=["memory", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteStore:
    place = f"bucket-{uuid4().hex}" if request.param == "memory" else f"{tmp_path}/bucket"
    return RemoteStore(f"{request.param}://{place}", cache=tmp_path / "cache")


def test_published_then_fetched(remote: RemoteStore, good: Bundle) -> None:
    assert remote.names() == []
    for version in (1, 2):
        address = remote.publish(good.manifest, filler(good))
        assert address == f"{remote.address}/shop/{version}"
    assert (remote.names(), remote.versions("shop")) == (["shop"], [1, 2])
    remote.promote("shop", 1)
    fetched = Bundle.load(remote.fetch("shop@champion"))
    assert fetched.version == 1
    assert fetched.manifest.files == good.manifest.files
    assert remote.fetch("shop").name == "2"
    remote.promote("shop", 2)
    assert remote.rollback("shop").version == 1


def test_what_is_cached_is_not_fetched_again_but_checked(remote: RemoteStore, good: Bundle) -> None:
    remote.publish(good.manifest, filler(good))
    folder = remote.fetch("shop")
    before = (folder / MANIFEST).stat().st_ino
    assert remote.fetch("shop") == folder
    assert (folder / MANIFEST).stat().st_ino == before
    (folder / "catalogue.parquet").write_bytes(b"rot")
    assert Bundle.load(remote.fetch("shop")).version == 1


def test_what_arrives_damaged_is_refused(remote: RemoteStore, good: Bundle) -> None:
    address = remote.publish(good.manifest, filler(good))
    files, path = fsspec.core.url_to_fs(address)
    files.pipe_file(f"{path}/catalogue.parquet", b"rot")
    with pytest.raises(BundleError, match=r"catalogue\.parquet has 3 bytes"):
        remote.fetch("shop")
    files.rm(f"{path}/catalogue.parquet")
    with pytest.raises(BundleError, match=r"catalogue\.parquet is missing"):
        remote.fetch("shop")


def test_an_upload_that_breaks_off_is_no_version(
    remote: RemoteStore, good: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded: list[str] = []
    upload = remote._upload

    def breaks(source: Path, target: str) -> None:
        if uploaded:
            raise OSError("connection reset")
        upload(source, target)
        uploaded.append(target)

    monkeypatch.setattr(remote, "_upload", breaks)
    with pytest.raises(OSError, match="connection reset"):
        remote.publish(good.manifest, filler(good))
    monkeypatch.undo()
    assert remote.versions("shop") == []
    with pytest.raises(StoreError, match="no bundle"):
        remote.fetch("shop")
    # Its number is spent: what was uploaded under it must never mix with another version.
    assert remote.publish(good.manifest, filler(good)).endswith("/shop/2")


def test_a_number_is_claimed_by_one(remote: RemoteStore) -> None:
    """Many at once, again and again: looking first and writing then would not do."""
    for attempt in range(20):
        together = threading.Barrier(8, timeout=20)

        def claim(_: int, together: threading.Barrier = together, name: str = f"n{attempt}") -> int:
            together.wait()
            return remote._claim(name)

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(claim, range(8))) == list(range(1, 9))


def test_publishers_at_the_same_time_get_different_numbers(
    remote: RemoteStore, good: Bundle
) -> None:
    together = threading.Barrier(4, timeout=20)

    def fill(folder: Path) -> None:
        filler(good)(folder)
        together.wait()

    threads = [
        threading.Thread(target=remote.publish, args=(good.manifest, fill)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert remote.versions("shop") == [1, 2, 3, 4]
    assert [Bundle.load(remote.fetch(f"shop@{v}")).version for v in range(1, 5)] == [1, 2, 3, 4]


def test_a_bundle_that_is_not_valid_is_not_uploaded(remote: RemoteStore, good: Bundle) -> None:
    def fill(folder: Path) -> None:
        filler(good)(folder)
        shutil.rmtree(folder / "model")

    with pytest.raises(BundleError, match=r"config\.json is not in the manifest"):
        remote.publish(good.manifest, fill)
    assert remote.versions("shop") == []


def test_create_bundle_publishes_anywhere(
    remote: RemoteStore, good: Bundle, tmp_path: Path
) -> None:
    items = write_items(random_items(20, (4, 4)), tmp_path / "items.jsonl")
    model = write_model(tmp_path / "model", good.spec)
    address = create_bundle(remote, name="shop", model=model, items=items, prompt=TEMPLATE)
    assert address == f"{remote.address}/shop/1"
    assert Bundle.load(remote.fetch("shop")).sids == good.sids


def test_addresses_open_what_they_mean(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path), Store)
    local = open_store(f"file://{tmp_path}")
    assert isinstance(local, Store)
    assert local.root == tmp_path
    assert isinstance(open_store("memory://bucket"), RemoteStore)
    with pytest.raises(StoreError, match="nowhere://x"):
        open_store("nowhere://x")
