"""`sidrec sids add` and what is behind it: later items get SIDs that the model can write."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from model_store.build.sids.incremental import add_items
from model_store.build.sids.taken import Taken
from model_store.bundle import Bundle
from model_store.errors import BuildError, BundleError
from model_store.sid import END, Trie, infer_spec
from model_store.store import Store, create_bundle
from service.cli import cli
from tests.build.sids.conftest import Row, Split
from tests.tiny import TEMPLATE, make_bundle, random_items, write_items, write_model


@pytest.fixture(scope="module")
def bundle(split: Split, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of the trained items, with the quantizer that made their SIDs."""
    place = tmp_path_factory.mktemp("bundle")
    model = write_model(place / "model", infer_spec([item["sid"] for item in split.trained]))
    items = write_items(split.trained, place / "items.jsonl")
    parts = {"model": model, "items": items, "prompt": TEMPLATE, "quantizer": folder / "quantizer"}
    return Bundle.load(create_bundle(Store(place / "store"), name="shop", **parts))  # type: ignore[arg-type]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["sids", *map(str, arguments)])


def plain(items: Sequence[Row]) -> list[Row]:
    return [{name: value for name, value in item.items() if name != "sid"} for item in items]


def test_later_items_get_sids_of_the_bundle_and_known_ones_keep_theirs(
    bundle: Bundle, split: Split
) -> None:
    known = split.trained[:10]
    added = add_items(bundle, plain(split.same + known))
    assert [item["item_id"] for item in added.items] == [
        item["item_id"] for item in split.same + known
    ]
    assert [item["sid"] for item in added.items[-10:]] == [item["sid"] for item in known]
    assert added.known == 10
    new = added.items[:-10]
    codes = bundle.spec.parse([item["sid"] for item in new])  # nothing leaves the codebooks
    everybody = np.concatenate([codes, bundle.catalogue.codes])
    _, count = np.unique(everybody, axis=0, return_counts=True)
    assert added.shared == (count - 1).sum()
    assert added.shared < 0.1 * len(new)
    assert added.drift is not None
    assert not added.drift.retrain
    # The first code of nearly all of them stands for items of their category.
    first = bundle.catalogue.codes[:, 0].tolist()
    categories = bundle.catalogue.table.column("category").to_pylist()
    meant = set(zip(first, categories, strict=True))
    right = [(code, item["category"]) in meant for code, item in zip(codes[:, 0], new, strict=True)]
    assert np.mean(right) > 0.9


def test_the_command_writes_items_and_prints_the_drift(
    bundle: Bundle, split: Split, tmp_path: Path
) -> None:
    items = write_items(plain(split.other), tmp_path / "new.jsonl")
    out, drift = tmp_path / "out.jsonl", tmp_path / "drift.json"
    result = run("add", bundle.path, items, "--out", out, "--drift", drift)
    assert result.exit_code == 0, result.output
    assert f"{len(split.other):,} new items" in result.output
    assert "retrain: " in result.output
    made = [json.loads(line) for line in out.read_text().splitlines()]
    assert [item["item_id"] for item in made] == [item["item_id"] for item in split.other]
    bundle.spec.parse([item["sid"] for item in made])
    assert json.loads(drift.read_text())["retrain"] is True


def test_what_cannot_be_added_is_named(bundle: Bundle, tmp_path: Path) -> None:
    rows = [{"item_id": "n1", "title": "Lamp"}, {"item_id": "n1", "title": "Lamp"}]
    rows += [{"item_id": "n2", "title": ""}, {"title": "Lamp"}]
    result = run("add", bundle.path, write_items(rows, tmp_path / "bad"), "--out", tmp_path / "o")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "item 2: another one has the id 'n1'",
        "item 'n2' has no title or brand or category or department",
        "item 4: item_id must be a non-empty string, not None",
    ]
    assert not (tmp_path / "o").exists()
    with pytest.raises(BundleError, match="there are no items"):
        add_items(bundle, [])


def test_a_bundle_without_a_quantizer_is_named(tmp_path: Path) -> None:
    other = make_bundle(tmp_path, random_items(20, (4, 4)))
    items = write_items([{"item_id": "n", "title": "Lamp"}], tmp_path / "new.jsonl")
    result = run("add", other.path, items, "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert "no quantizer" in result.stderr


def test_a_quantizer_of_other_levels_is_refused(folder: Path, tmp_path: Path) -> None:
    items = random_items(20, (4, 4))
    model = write_model(tmp_path / "model", infer_spec([item["sid"] for item in items]))
    path = create_bundle(
        Store(tmp_path / "store"),
        name="other",
        model=model,
        items=write_items(items, tmp_path / "items.jsonl"),
        prompt=TEMPLATE,
        quantizer=folder / "quantizer",
    )
    with pytest.raises(BuildError, match=r"\(32, 32, 32\).*\(4, 4\)"):
        add_items(Bundle.load(path), [{"item_id": "n", "title": "Lamp"}])


@dataclass
class Distances:
    """The distances of every item to the codes of the last level."""

    of: Sequence[float]

    def __call__(self, row: int) -> np.ndarray:
        return np.array(self.of, np.float32)


def test_later_items_take_the_next_number_as_long_as_there_is_one() -> None:
    taken = Taken(Trie.build(np.array([[0, 1, END], [0, 2, 0], [0, 2, 1]], np.int32)), 2, numbers=3)
    found = np.array([[0, 1], [0, 1], [0, 2], [0, 2], [0, 2], [0, 0]], np.int32)
    placed = taken.place(found, "extra", Distances([]))
    # Behind <0><2> the numbers end at 2; then one item may go without, and the next shares that.
    assert placed[:, 2].tolist() == [0, 1, 2, END, END, END]
    assert taken.shared == 1


def test_later_items_share_a_sid_where_collisions_are_kept() -> None:
    taken = Taken(Trie.build(np.array([[0, 1]], np.int32)), 2, numbers=0)
    placed = taken.place(np.array([[0, 1], [1, 1], [1, 1]], np.int32), "keep", Distances([]))
    assert placed.tolist() == [[0, 1, END], [1, 1, END], [1, 1, END]]
    assert taken.shared == 2


def test_later_items_move_to_the_nearest_free_code() -> None:
    taken = Taken(Trie.build(np.array([[0, 1], [0, 2], [1, 0]], np.int32)), 2, numbers=0)
    found = np.array([[0, 1], [0, 1], [0, 1]], np.int32)
    placed = taken.place(found, "reassign", Distances([3, 0, 1, 2]))
    # Codes by distance are 1, 2, 3, 0; 1 and 2 are taken. The third item finds none.
    assert placed.tolist() == [[0, 3, END], [0, 0, END], [0, 1, END]]
    assert taken.shared == 1


def test_report_of_a_bundle_and_of_a_file_say_the_same(
    bundle: Bundle, split: Split, tmp_path: Path
) -> None:
    items = write_items(split.trained, tmp_path / "items.jsonl")
    found = []
    for name, source in (("bundle", bundle.path), ("file", items)):
        out, plot = tmp_path / f"{name}.json", tmp_path / f"{name}.png"
        result = run("report", source, "--by", "department", "--out", out, "--plot", plot)
        assert result.exit_code == 0, result.output
        assert "perplexity" in result.output
        assert plot.stat().st_size > 1000
        found.append(json.loads(out.read_text()))
    for one, other in zip(*(report["levels"] for report in found), strict=True):
        assert one["perplexity"] == pytest.approx(other["perplexity"])
        assert one["purity"] == pytest.approx(other["purity"])
    assert found[0]["colliding"] == found[1]["colliding"] == 0
    no_sids = write_items(plain(split.trained), tmp_path / "none.jsonl")
    result = run("report", no_sids)
    assert result.exit_code == 1
    assert "have no sid" in result.stderr
