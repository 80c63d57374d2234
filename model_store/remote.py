"""Bundles at any address that fsspec knows: `s3://bucket/models`, `gs://…`, `file://…`.

Object stores cannot rename a folder, so a version is uploaded file by file and its manifest last:
until that is there, the version is not. A bundle is served from a local folder; `fetch` downloads
one and checks it.
"""

import hashlib
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from model_store.bundle import MANIFEST, Manifest, validate
from model_store.errors import BundleError, StoreError
from model_store.store import Store, stage
from model_store.versions import Versions

CLAIMS = "claims"
CACHE = Path.home() / ".cache" / "sidrec"

_CREATING = threading.Lock()
"""Held while a file is created that must not be there: not every fsspec does it in one step."""


class RemoteStore(Versions[str]):
    """Versions of bundles below an fsspec address. `cache` receives what is fetched."""

    def __init__(self, address: str, cache: Path = CACHE) -> None:
        try:
            # A cached listing would hide what others publish.
            files, root = url_to_fs(address, use_listings_cache=False)
        except (ImportError, ValueError) as error:  # a protocol that is unknown or not installed
            raise StoreError(f"{address}: {error}") from error
        super().__init__(files, root)
        self._address = address
        # Addresses may hold the same name and number; a cache must not mix them.
        self._cache = cache / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:12]

    @property
    def address(self) -> str:
        return self._address

    def publish(self, manifest: Manifest, fill: Callable[[Path], None]) -> str:
        local = Path(mkdtemp(prefix="sidrec-publish-"))
        try:
            fill(local)
            version = self._claim(manifest.name)
            stage(local, manifest, version)
            for path in sorted(local.rglob("*")):
                if path.is_file() and path != local / MANIFEST:
                    name = path.relative_to(local).as_posix()
                    self._upload(path, self._at(manifest.name, str(version), name))
            # All or nothing, and only now: this is what makes the version one.
            content = (local / MANIFEST).read_bytes()
            self._replace(self._at(manifest.name, str(version), MANIFEST), content)
        finally:
            shutil.rmtree(local, ignore_errors=True)
        return self.locate(manifest.name, version)

    def locate(self, name: str, version: int) -> str:
        return f"{self.address.rstrip('/')}/{name}/{version}"

    def fetch(self, reference: str) -> Path:
        name, version = self.resolve(reference)
        folder = self._cache / name / str(version)
        if (folder / MANIFEST).is_file() and not validate(folder):
            return folder
        self._cache.mkdir(parents=True, exist_ok=True)
        part = Path(mkdtemp(prefix=".fetch-", dir=self._cache))
        try:
            self._download(name, version, part)
            if problems := validate(part):
                raise BundleError(problems)
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.rename(folder)
            except OSError:
                if validate(folder):  # else another process fetched the same at the same time
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return folder

    def _download(self, name: str, version: int, into: Path) -> None:
        (into / MANIFEST).write_bytes(self._files.cat_file(self._at(name, str(version), MANIFEST)))
        manifest = Manifest.model_validate_json((into / MANIFEST).read_bytes())
        for file in manifest.files:
            target = into / file
            if not target.resolve().is_relative_to(into.resolve()):
                raise BundleError([f"{file} leaves the bundle's folder"])
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._files.get_file(self._at(name, str(version), file), str(target))
            except FileNotFoundError:
                raise BundleError([f"{self.locate(name, version)}: {file} is missing"]) from None

    def _claim(self, name: str) -> int:
        """A number that no other publisher has: a file that is created only if it is not there."""
        folder = self._at(name, CLAIMS)
        self._files.makedirs(folder, exist_ok=True)
        taken = [*self._entries(name), *self._entries(f"{name}/{CLAIMS}")]
        version = max((int(entry) for entry in taken if entry.isdecimal()), default=0) + 1
        while True:
            try:
                self._create(f"{folder}/{version}")
            except FileExistsError:
                version += 1
            else:
                return version

    def _create(self, path: str) -> None:
        """An empty file. Raises `FileExistsError` where there is one, for all but one of those
        who try at the same time: of this process, of this machine, or wherever the service behind
        the address creates conditionally, as S3 does."""
        with _CREATING:
            if isinstance(self._files, LocalFileSystem):
                # fsspec looks first and writes then.
                with open(path, "xb"):
                    return
            self._files.pipe_file(path, b"", mode="create")

    def _upload(self, source: Path, target: str) -> None:
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(source), target)


AnyStore = Store | RemoteStore


def open_store(address: str | Path) -> AnyStore:
    """The store at a local folder or at an fsspec address. Raises `StoreError`."""
    text = str(address)
    if text.startswith("file://"):
        return Store(text.removeprefix("file://"))
    return RemoteStore(text) if "://" in text else Store(text)
