"""The whole build, small: it must end in a bundle that serves."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from model_store.build.config import BuildConfig, load_config
from model_store.build.evaluate import metrics
from model_store.build.files import read_rows
from model_store.build.ingest import read_items, read_split
from model_store.build.pipeline import build, run_stages
from model_store.build.rows import reordered
from model_store.build.tokenizer import save_tokenizer, train_tokenizer
from model_store.bundle import Bundle
from model_store.errors import BuildError
from model_store.sid import Level, SidSpec
from model_store.store import Store
from service.cli import cli
from service.engine import Query, create_engine
from service.offline import engine_finder, engine_ranker
from service.prompt import PromptBuilder
from tests.tiny import MAX_LENGTH, random_model

CONFIGS = Path(__file__).parents[2] / "model_store" / "build" / "configs"
TINY = CONFIGS / "tiny.toml"
TINY_MODEL = {"hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate": 64}
TINY_TRAIN = {"epochs": 1, "batch_tokens": 2048}


def tiny(config: BuildConfig, **changes: object) -> BuildConfig:
    raw = config.model_dump() | {"model": TINY_MODEL, "train": TINY_TRAIN} | changes
    return BuildConfig.model_validate(raw)


@dataclass(frozen=True)
class Built:
    config: BuildConfig
    store: Store
    work: Path

    @property
    def bundle(self) -> Bundle:
        return Bundle.load(self.store.path("tiny", 1))

    def again(self, **changes: object) -> Path:
        config = BuildConfig.model_validate(self.config.model_dump() | changes)
        return build(config, self.store, self.work, engine_finder)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What `tiny.toml` makes in one go, on one thread."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("built")
    found = Built(load_config(TINY), Store(folder / "store"), folder / "work")
    assert found.again() == found.store.path("tiny", 1)
    return found


def test_a_shop_becomes_a_bundle_that_serves(built: Built) -> None:
    bundle = built.bundle
    assert len(bundle.catalogue) == 120
    assert set(bundle.manifest.metrics) == {"popularity", "co-occurrence", "SASRec", "tiny model"}
    assert (bundle.path / "quantizer" / "quantizer.safetensors").exists()
    with create_engine("torch", bundle) as engine:
        tokens, used = PromptBuilder(bundle).build([3, 5], {"性别": "男"})
        [beams] = engine.search_batch([Query(tokens, 10)])
    assert used == 2
    assert len(beams) == 10
    assert built.store.resolve("tiny@champion") == ("tiny", 1)


def test_the_metrics_are_those_of_the_bundle(built: Built) -> None:
    """Ranked once more, from outside of the build, by the bundle as it is served."""
    items = read_items(built.work / "sids")
    split = read_split(built.work / "ingest", items)
    bundle = built.bundle
    ranked = reordered(engine_ranker(bundle), bundle, items)(split.test)
    expected = metrics(ranked, [case.target for case in split.test])
    assert bundle.manifest.metrics["tiny model"] == pytest.approx(expected, abs=1e-12)


def test_the_report_is_in_the_bundle(built: Built) -> None:
    folder = built.bundle.path / "report"
    report = (folder / "report.md").read_text()
    figure = built.bundle.manifest.metrics["co-occurrence"]["NDCG@10"]
    assert f"{figure:.4f}" in report
    images = re.findall(r"\((\w+\.png)\)", report)
    assert len(images) == 4
    assert all((folder / image).read_bytes().startswith(b"\x89PNG") for image in images)
    found = json.loads((built.work / "evaluate/metrics.json").read_text())
    for part in ("history", "popularity", "scene"):
        assert sum(bucket["cases"] for bucket in found[part].values()) == 100
    assert list(found["scene"]) == ["cart", "home", "promo", "search"]
    # The users themselves were learnt from (leave-one-out), so only their last item is new.
    assert list(found["cold"]) == ["hidden"]
    assert found["cold"]["hidden"]["cases"] == 100
    cold = found["cold"]["hidden"]["metrics"]
    assert list(cold) == ["popularity", "popularity in the scene", "tiny model"]
    assert cold["popularity"] == found["overall"]["popularity"]
    assert f"{cold['tiny model']['NDCG@10']:.4f}" in report
    assert 0 <= found["free"]["first"] <= 1
    assert 0 <= found["titles"] <= 1


def test_the_tasks_are_exported_as_text(built: Built) -> None:
    tasks = {
        name: read_rows(built.work / "dataset" / f"{name}.jsonl")
        for name in ("next_item", "sid_to_title", "title_to_sid")
    }
    sids, titles = set(built.bundle.sids), set(built.bundle.catalogue.titles)
    assert [len(rows) for rows in tasks.values()] == [100, 20, 20]
    assert all(row["response"] in sids for row in tasks["next_item"] + tasks["title_to_sid"])
    assert all(row["response"] in titles for row in tasks["sid_to_title"])
    assert all(row["instruction"].startswith("该用户") for row in tasks["next_item"])


def test_finished_stages_are_kept_and_the_version_too(built: Built) -> None:
    def times() -> dict[str, int]:
        return {f.parent.name: f.stat().st_mtime_ns for f in built.work.glob("*/stage.json")}

    before = times()
    assert built.again() == built.store.path("tiny", 1)
    assert times() == before
    # What is measured depends on the training, and not the other way round.
    evaluation = {"sample": 0, "sasrec": None}
    assert built.again(evaluate=evaluation) == built.store.path("tiny", 2)
    after = times()
    assert [name for name in before if before[name] != after[name]] == ["evaluate"]
    assert built.store.resolve("tiny@champion") == ("tiny", 2)  # as good as the one before


def test_a_worse_model_does_not_become_champion(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = [{"metric": "NDCG@10", "against": "co-occurrence", "margin": 9.0}]
    path = built.again(evaluate={"exclude_seen": True}, publish={"rules": rules})
    champion = built.store.resolve("tiny@champion")
    assert champion != ("tiny", int(path.name))
    said = capsys.readouterr().out
    assert f"tiny@{path.name} does not become champion" in said
    assert "(co-occurrence × 10)" in "".join(said.split("\n"))
    for bundle, rule in ((path, "in no ranking"), (built.bundle.path, "in any ranking")):
        assert f"| items of the history | {rule} |" in (bundle / "report/report.md").read_text()


def test_one_stage_at_a_time(built: Built, tmp_path: Path) -> None:
    def run(*stages: str) -> Path | None:
        store = Store(tmp_path / "store")
        return run_stages(built.config, store, tmp_path / "work", engine_finder, stages)

    with pytest.raises(BuildError, match="no stage bake; there are ingest, sids"):
        run("bake")
    with pytest.raises(BuildError, match="ingest is not finished"):
        run("sids")
    assert run("ingest", "sids") is None
    assert (tmp_path / "work/sids/items.jsonl").exists()
    assert not (tmp_path / "work/dataset").exists()
    with pytest.raises(BuildError, match="dataset is not finished"):
        run("publish")


def test_validation_needs_cases(built: Built, tmp_path: Path) -> None:
    config = BuildConfig.model_validate(built.config.model_dump() | {"split": {"kind": "users"}})
    with pytest.raises(BuildError, match="validate_every needs validation cases"):
        build(config, Store(tmp_path / "s"), tmp_path / "w", engine_finder)


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
    bundle = Bundle.load(build(config, Store(tmp_path / "s"), tmp_path / "w", engine_finder))
    assert sorted(bundle.sids) == sorted(f"<a_{i % 3}><b_{i // 3}>" for i in range(12))
    # The last two clicks of every user are kept out of the counts.
    kept = sum(len(s["sequence"]) - 2 for s in sequences if len(s["sequence"]) > 2)
    assert bundle.catalogue.popularity.sum() == kept


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_an_existing_model_is_fine_tuned_and_served(
    tmp_path: Path, lora: dict[str, int] | None
) -> None:
    words = train_tokenizer(["Purchases: 0 1 2"], SidSpec((Level("<x_{}>", 1),)), 300)
    random_model("llama", words.get_vocab_size()).save_pretrained(tmp_path / "base")
    save_tokenizer(words, tmp_path / "base", MAX_LENGTH)
    sequences = [
        {"user_id": f"u{u}", "sequence": [str((u + i) % 12) for i in range(4)]} for u in range(20)
    ]
    config = tiny(
        load_config(CONFIGS / "beauty.toml"),
        data=write_files(tmp_path, sequences),
        model={"base": str(tmp_path / "base"), "lora": lora, "dtype": "bfloat16"},
        evaluate={"sample": 2},
    )
    bundle = Bundle.load(build(config, Store(tmp_path / "s"), tmp_path / "w", engine_finder))
    assert bundle.spec.depth == 2
    weights = load_file(bundle.model_path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    with create_engine("torch", bundle) as engine:
        tokens, _ = PromptBuilder(bundle).build([3, 5])
        [beams] = engine.search_batch([Query(tokens, 12)])
    assert len(beams) == 12


def test_mistakes_in_a_configuration_are_named(tmp_path: Path) -> None:
    text = (CONFIGS / "demo.toml").read_text()
    path = tmp_path / "bad.toml"
    path.write_text(text.replace("epochs =", "epocs =").replace("{history}", "history"))
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
    with pytest.raises(BuildError, match=r"none\.jsonl"):
        build(config, Store(tmp_path / "s"), tmp_path / "w", engine_finder)
