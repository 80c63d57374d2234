"""A shop cut in three: what a quantizer learns from, more of the same, and other departments."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from model_store.build.shop import generate_shop
from model_store.build.sids.config import Sids
from model_store.build.sids.quantizer import Quantizer
from model_store.build.sids.stage import make_sids

Row = dict[str, Any]
TEXT = ("title", "brand", "category", "department")


@dataclass(frozen=True)
class Split:
    """trained: with the SIDs that `make_sids` gave; same: of the same departments, unseen; other:
    of the departments that were left out."""

    trained: list[Row]
    same: list[Row]
    other: list[Row]


@pytest.fixture(scope="session")
def shop() -> list[Row]:
    """The demo shop's 2,600 items."""
    return generate_shop(20, 2600, 1).items


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sids")


@pytest.fixture(scope="session")
def split(shop: list[Row], folder: Path) -> Split:
    departments = sorted({str(item["department"]) for item in shop})
    strange = set(departments[: len(departments) // 3])
    known = [dict(item) for item in shop if item["department"] not in strange]
    cut = 3 * len(known) // 4
    trained = known[:cut]
    settings = Sids(text=TEXT, dimensions=48, levels=3, codes=32, report_by="department")
    make_sids(settings, trained, [], folder)
    other = [item for item in shop if item["department"] in strange]
    return Split(trained, known[cut:], other)


@pytest.fixture(scope="session")
def made(split: Split, folder: Path) -> Quantizer:
    """The quantizer of `split.trained`."""
    return Quantizer.load(folder / "quantizer")
