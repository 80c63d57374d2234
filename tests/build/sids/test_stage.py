"""The whole step: every item gets a SID, and what was asked for is seen in it."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from model_store.build.config import load_config
from model_store.build.sids.config import Sids
from model_store.build.sids.quantizer import Quantizer
from model_store.build.sids.stage import make_sids
from model_store.errors import BuildError
from tests.build.sids.conftest import TEXT, Row
from tests.build.test_embed import save_encoder

OFFICE = Path(__file__).parents[4] / "shared" / "data" / "office" / "items.jsonl.gz"
CONFIGS = Path(__file__).parents[3] / "model_store" / "build" / "configs"
# Short, because the share of codes in use settles early.
SHORT = {"kind": "rq-vae", "warmup": 5, "epochs": 15}


def sid_report(folder: Path) -> dict[str, list[dict[str, float]]]:
    loaded: dict[str, list[dict[str, float]]] = json.loads((folder / "sid_report.json").read_text())
    return loaded


def check_use(folder: Path) -> None:
    for level in sid_report(folder)["levels"]:
        assert level["used"] >= 0.9
        assert level["perplexity"] <= level["size"]


@pytest.mark.parametrize("quantizer", [{"kind": "residual-kmeans", "restarts": 1}, SHORT])
def test_the_demo_shop_uses_its_codebooks(
    shop: list[Row], tmp_path: Path, quantizer: dict[str, object]
) -> None:
    items = [dict(item) for item in shop]
    raw = {"text": TEXT, "levels": 4, "codes": 128, "quantizer": quantizer}
    spec = make_sids(Sids.model_validate(raw), items, [], tmp_path)
    check_use(tmp_path)
    assert len({item["sid"] for item in items}) == len(items)  # the extra token tells them apart
    assert spec.depth == 4 + spec.extra
    first, *_, last = sid_report(tmp_path)["levels"]
    assert first["purity"] > 0.9
    assert first["prefixes"] <= 128 < last["prefixes"]
    assert (tmp_path / "sids.png").stat().st_size > 10_000


@pytest.mark.skipif(not OFFICE.is_file(), reason=f"no real data at {OFFICE}")
def test_office_uses_its_codebooks(tmp_path: Path) -> None:
    with gzip.open(OFFICE) as lines:
        items = [json.loads(line) for line in lines]
    settings = load_config(CONFIGS / "office.toml").sids
    assert settings is not None
    short = settings.model_copy(
        update={"quantizer": Sids.model_validate({"quantizer": SHORT}).quantizer}
    )
    make_sids(short, items, [], tmp_path)
    assert [level["size"] for level in sid_report(tmp_path)["levels"]] == [256, 256, 256]
    check_use(tmp_path)


def test_an_interrupted_step_is_taken_up_and_ends_alike(
    shop: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a Hugging Face encoder and an RQ-VAE, interrupted behind the training; inside of it see
    test_rqvae.py."""
    encoder = {"model": str(save_encoder(tmp_path / "encoder", "bert")), "pooling": "cls"}
    settings = Sids.model_validate(
        {"encoder": encoder, "levels": 2, "codes": 16, "quantizer": SHORT}
    )
    finished = {}
    for name in ("whole", "interrupted"):
        items = [dict(item) for item in shop[:200]]
        if name == "interrupted":
            with monkeypatch.context() as patch:
                patch.setattr("model_store.build.sids.rqvae_train.freeze", _interrupt)
                with pytest.raises(KeyboardInterrupt):
                    make_sids(settings, items, [], tmp_path / name)
            assert not (tmp_path / name / "quantizer").exists()
        make_sids(settings, items, [], tmp_path / name)
        tensors = (tmp_path / name / "quantizer" / "quantizer.safetensors").read_bytes()
        finished[name] = ([item["sid"] for item in items], tensors)
    assert finished["whole"] == finished["interrupted"]
    quantizer = Quantizer.load(tmp_path / "whole" / "quantizer")
    assert quantizer.embedder.about()["encoder"]["pooling"] == "cls"
    codes, _ = quantizer.sids([str(item["title"]) for item in shop[:200]])
    assert len(np.unique(codes, axis=0)) > 20


def _interrupt(model: object) -> None:
    raise KeyboardInterrupt


def test_items_without_text_are_named_and_get_a_sid(
    shop: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [dict(item) for item in shop[:50]]
    items[7] |= {"title": None}
    settings = Sids(levels=2, codes=8)
    make_sids(settings, items, [], tmp_path)
    assert "1 of 50 items, p00007" in capsys.readouterr().out
    assert items[7]["sid"]
    with pytest.raises(BuildError, match=r"no item has brandname"):
        make_sids(settings.model_copy(update={"text": ("brandname",)}), items, [], tmp_path)
    with pytest.raises(BuildError, match=r"at least two items"):
        make_sids(settings, items[:1], [], tmp_path)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ({"levels": 3, "codes": [8, 8]}, "2 sizes for 3 levels"),
        ({"quantizer": {"kind": "rq-vea"}}, "rq-vae"),
        ({"collisions": "ignore"}, "'keep', 'extra' or 'reassign'"),
        ({"encoder": {"model": "x", "pooling": "max"}}, "'cls', 'mean' or 'last'"),
        ({"codes": 0}, "greater than or equal to 1"),
    ],
)
def test_mistakes_are_named(raw: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Sids.model_validate(raw)


@pytest.mark.parametrize("name", ["demo", "beauty", "office"])
def test_the_shipped_configurations_are_fine(name: str) -> None:
    assert load_config(CONFIGS / f"{name}.toml").name == name
