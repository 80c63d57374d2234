"""The whole build, small: it must end in a bundle that serves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model_store.build.config import BuildConfig, load_config
from model_store.build.pipeline import build
from model_store.bundle import Bundle
from model_store.errors import BuildError, BundleError
from model_store.store import Store
from service.cli import cli
from service.engine import Query, create_engine
from service.offline import engine_ranker
from service.prompt import PromptBuilder

CONFIGS = Path(__file__).parents[2] / "model_store" / "build" / "configs"
TINY_MODEL = {"hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate": 64}
TINY_TRAIN = {"epochs": 1, "batch_tokens": 2048}


def tiny(config: BuildConfig, **changes: object) -> BuildConfig:
    raw = config.model_dump() | {"model": TINY_MODEL, "train": TINY_TRAIN} | changes
    return BuildConfig.model_validate(raw)


@pytest.fixture(scope="module")
def demo_config() -> BuildConfig:
    data = {"source": "shop", "items": 120, "users": 80}
    sids = {"levels": 2, "codes": 8, "dimensions": 16, "text": ("title", "category")}
    return tiny(load_config(CONFIGS / "demo.toml"), data=data, sids=sids)


def test_a_shop_becomes_a_bundle_that_serves(demo_config: BuildConfig, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = build(demo_config, store, tmp_path / "work", engine_ranker)
    assert path == store.path("demo", 1)
    bundle = Bundle.load(path)
    assert len(bundle.catalogue) == 120
    assert bundle.spec.extra  # 64 pairs of codes cannot tell 120 items apart
    assert set(bundle.manifest.metrics) == {"popularity", "co-occurrence", "demo model"}
    assert (path / "quantizer" / "quantizer.safetensors").exists()
    with create_engine("torch", bundle) as engine:
        tokens, used = PromptBuilder(bundle).build([3, 5], {"性别": "男"})
        [beams] = engine.search_batch([Query(tokens, 10)])
    assert used == 2
    assert len(beams) == 10


def test_a_seed_gives_the_same_bundle(demo_config: BuildConfig, tmp_path: Path) -> None:
    files = []
    for run in ("one", "two"):
        path = build(demo_config, Store(tmp_path / run), tmp_path / f"work-{run}", engine_ranker)
        files.append(Bundle.load(path).manifest.files)
    assert files[0] == files[1]


def write_files(folder: Path, sequences: Sequence[Mapping[str, object]]) -> dict[str, object]:
    items = [{"item_id": str(i), "sid": f"<a_{i % 3}><b_{i // 3}>"} for i in range(12)]
    for name, rows in (("items", items), ("sequences", sequences)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "source": "files",
        "items": folder / "items.jsonl",
        "sequences": folder / "sequences.jsonl",
    }


def test_files_with_published_sids(tmp_path: Path) -> None:
    sequences = [
        {"user_id": f"u{u}", "sequence": [str((u + i) % 12) for i in range(2 + u % 5)]}
        for u in range(30)
    ]
    config = tiny(
        load_config(CONFIGS / "beauty.toml"),
        data=write_files(tmp_path, sequences),
        split={"kind": "leave-one-out"},
    )
    bundle = Bundle.load(build(config, Store(tmp_path / "s"), tmp_path / "w", engine_ranker))
    assert sorted(bundle.sids) == sorted(f"<a_{i % 3}><b_{i // 3}>" for i in range(12))
    # The last two clicks of every user are kept out of the counts.
    kept = sum(len(s["sequence"]) - 2 for s in sequences if len(s["sequence"]) > 2)
    assert bundle.catalogue.popularity.sum() == kept


def test_an_unknown_item_in_a_sequence_is_named(tmp_path: Path) -> None:
    data = write_files(tmp_path, [{"user_id": "mei", "sequence": ["1", "nowhere", "2"]}])
    config = tiny(load_config(CONFIGS / "beauty.toml"), data=data)
    with pytest.raises(BuildError, match=r"'mei'.*'nowhere'"):
        build(config, Store(tmp_path / "s"), tmp_path / "w", engine_ranker)


def test_mistakes_in_a_configuration_are_named(tmp_path: Path) -> None:
    text = (CONFIGS / "demo.toml").read_text()
    path = tmp_path / "bad.toml"
    path.write_text(text.replace("epochs = 12", "epocs = 12").replace("{history}", "history"))
    result = CliRunner().invoke(cli, ["build", str(path), "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "train.epocs" in result.output
    assert "{history}" in result.output
    path.write_text("name = ")
    with pytest.raises(BuildError, match=r"bad\.toml"):
        load_config(path)


def test_missing_data_is_named(tmp_path: Path) -> None:
    data = {"source": "files", "items": tmp_path / "none.jsonl", "sequences": tmp_path / "no"}
    config = tiny(load_config(CONFIGS / "beauty.toml"), data=data)
    with pytest.raises(BundleError, match=r"none\.jsonl"):
        build(config, Store(tmp_path / "s"), tmp_path / "w", engine_ranker)
