"""What a bundle keeps of a quantizer gives later items their codes."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_store.build.sids.config import Sids
from model_store.build.sids.quantizer import Quantizer
from model_store.build.sids.stage import make_sids
from model_store.bundle import Bundle
from model_store.errors import BuildError
from service.settings import Settings
from tests.build.sids.conftest import TEXT, Row, Split

RQ_VAE = {"kind": "rq-vae", "hidden": [32], "latent": 16, "warmup": 3, "epochs": 8}


@pytest.fixture(scope="module")
def items(shop: list[Row]) -> list[Row]:
    return [dict(item) for item in shop[:400]]


@pytest.mark.parametrize("kind", ["residual-kmeans", "rq-vae"])
@pytest.mark.parametrize("clicks", [False, True])
def test_a_loaded_quantizer_gives_the_catalogues_codes(
    items: list[Row], tmp_path: Path, kind: str, clicks: bool
) -> None:
    raw = {
        "text": TEXT,
        "dimensions": 24,
        "levels": 3,
        "codes": [16, 8, 8],
        "collisions": "keep",
        "quantizer": RQ_VAE if kind == "rq-vae" else {"kind": kind},
        "collaborative": {"dimensions": 8, "weight": 0.3} if clicks else None,
    }
    # Neighbours in the file are clicked together; the last hundred items are never clicked.
    users = [[(start + step) % 300 for step in range(5)] for start in range(300)]
    spec = make_sids(Sids.model_validate(raw), items, users, tmp_path)
    quantizer = Quantizer.load(tmp_path / "quantizer")
    assert (quantizer.kind, quantizer.collisions) == (kind, "keep")
    codes, errors = quantizer.sids(quantizer.texts(items))
    assert codes.shape == (400, 3)
    alike = codes == spec.parse([item["sid"] for item in items])
    assert alike[300:].all()  # nothing but the text is known of these in the build either
    assert alike.all() or clicks
    assert errors == pytest.approx(
        ((quantizer.vectors(quantizer.texts(items)) - quantizer.residual.decode(codes)) ** 2).sum(1)
    )
    assert quantizer.reference is not None
    assert len(quantizer.reference) == 40
    assert (np.diff(quantizer.reference) >= 0).all()
    files = {path.name for path in (tmp_path / "quantizer").iterdir()}
    assert files == {"quantizer.json", "quantizer.safetensors"}


def test_the_shipped_bundles_quantizer_gives_its_codes() -> None:
    bundle = Bundle.load(Settings.model_fields["bundle"].default)
    quantizer = Quantizer.load(bundle.path / "quantizer")
    items = bundle.catalogue.table.to_pylist()
    codes, _ = quantizer.sids(quantizer.texts(items))
    before_last = codes.shape[1] - 1  # where collisions may have moved an item
    assert (codes[:, :before_last] == bundle.catalogue.codes[:, :before_last]).all()


def test_quantizers_of_the_first_bundles_still_load(
    made: Quantizer, split: Split, tmp_path: Path
) -> None:
    """They kept no reference errors and named no policy."""
    replace(made, reference=None).save(tmp_path)
    about = json.loads((tmp_path / "quantizer.json").read_text())
    first = {name: about[name] for name in ("embedder", "quantizer", "text")}
    (tmp_path / "quantizer.json").write_text(json.dumps(first))
    loaded = Quantizer.load(tmp_path)
    assert (loaded.reference, loaded.collisions) == (None, "extra")
    texts = made.texts(split.same)
    assert (loaded.sids(texts)[0] == made.sids(texts)[0]).all()


def test_one_item_takes_milliseconds(made: Quantizer) -> None:
    made.sids(["a first text warms up"])
    started = time.perf_counter()
    for i in range(20):
        made.sids([f"Quillon K{i} 4K Portable Display, {i} inch"])
    assert (time.perf_counter() - started) / 20 < 0.05  # 1 ms on a quiet machine


def test_what_is_no_quantizer_is_named(tmp_path: Path, folder: Path, made: Quantizer) -> None:
    with pytest.raises(BuildError, match=r"not a quantizer"):
        Quantizer.load(tmp_path)
    for name in ("quantizer.json", "quantizer.safetensors"):
        (tmp_path / name).write_bytes((folder / "quantizer" / name).read_bytes())
    about = json.loads((tmp_path / "quantizer.json").read_text())
    (tmp_path / "quantizer.json").write_text(json.dumps(about | {"embedder": "tea leaves"}))
    with pytest.raises(BuildError, match=r"tea leaves"):
        Quantizer.load(tmp_path)
    (tmp_path / "quantizer.json").write_text(json.dumps(about))
    (tmp_path / "quantizer.safetensors").write_bytes(b"broken")
    with pytest.raises(BuildError, match=r"not a quantizer"):
        Quantizer.load(tmp_path)
