"""Bundles: made, loaded, published at once or not at all, and refused when anything is wrong."""

import gzip
import json
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models

from model_store import Bundle, BundleError, ModelStoreError, SidError
from model_store.build.tokenizer import save_tokenizer, train_tokenizer
from model_store.bundle import CATALOGUE, MANIFEST, Manifest, file_entries, is_pickle, validate
from model_store.neighbours import NEIGHBOURS
from model_store.prompt import PromptTemplate
from model_store.sid import END, Level, SidSpec, infer_spec
from model_store.store import Store, create_bundle
from tests.tiny import (
    MAX_LENGTH,
    TEMPLATE,
    Item,
    make_bundle,
    random_blend,
    random_items,
    write_items,
)

ITEMS = random_items(30, (4, 4, 4), seed=8, extra_share=0.4)
TOKENIZER = "model/tokenizer.json"
CONFIG = "model/config.json"
WEIGHTS = "model/model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("good"), ITEMS)


@pytest.fixture(scope="module")
def model(good: Bundle) -> Path:
    """The model folder that the good bundle was made from."""
    return good.path.parents[2] / "model-tiny"


@pytest.fixture
def folder(good: Bundle, tmp_path: Path) -> Path:
    """A copy of the good bundle, to be broken."""
    return shutil.copytree(good.path, tmp_path / "bundle")


def read_json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**read_json(file), **values}))


def seal(folder: Path) -> None:
    """Makes the manifest agree with the files again: what is wrong now is not a checksum."""
    edit(
        folder / MANIFEST,
        files={name: entry.model_dump() for name, entry in file_entries(folder).items()},
    )


def edit_table(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(folder / CATALOGUE)), folder / CATALOGUE)
    seal(folder)


def problems_of(folder: Path) -> list[str]:
    """The problems of a bundle, found alike by `validate` and `Bundle.load`."""
    problems = validate(folder)
    assert problems
    assert all(problem and "\n" not in problem for problem in problems)
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    assert caught.value.problems == problems
    return problems


def sole_problem(folder: Path) -> str:
    [problem] = problems_of(folder)
    return problem


class TestGoodBundle:
    def test_has_no_problems(self, good: Bundle) -> None:
        assert validate(good.path) == []

    def test_holds_every_item_with_its_sid(self, good: Bundle) -> None:
        loaded = dict(zip(good.catalogue.item_ids, good.sids, strict=True))
        assert loaded == {item["item_id"]: item["sid"] for item in ITEMS}

    def test_holds_every_attribute(self, good: Bundle) -> None:
        for item in ITEMS:
            row = good.catalogue.row_of[item["item_id"]]
            known = {name: value for name, value in item.items() if name != "sid"}
            assert good.catalogue.attributes(row) == known
            assert good.catalogue.titles[row] == item["title"]
            assert good.catalogue.popularity[row] == item["popularity"]

    def test_items_stand_in_the_order_of_their_sids(self, good: Bundle) -> None:
        codes = good.catalogue.codes.tolist()
        assert codes == sorted(codes)
        assert good.trie.codes.tolist() == codes
        assert good.trie.n_items == len(ITEMS)

    def test_knows_its_model(self, good: Bundle) -> None:
        assert (good.name, good.version) == ("tiny", 1)
        assert good.max_length == MAX_LENGTH
        assert good.max_prompt_tokens == MAX_LENGTH - good.spec.depth
        for level, ids in zip(good.spec.levels, good.level_tokens, strict=True):
            texts = [level.token(code) for code in range(level.size)]
            assert [good.tokenizer.id_to_token(i) for i in ids.tolist()] == texts

    def test_popular_items_come_first(self, good: Bundle) -> None:
        counts = good.catalogue.popularity[good.catalogue.popular()]
        assert counts.tolist() == sorted((item["popularity"] for item in ITEMS), reverse=True)

    def test_a_code_that_no_item_has_may_lack_its_token(self, folder: Path) -> None:
        manifest = read_json(folder / MANIFEST)
        manifest["sid"]["levels"][0]["size"] = 9
        edit(folder / MANIFEST, **manifest)
        loaded = Bundle.load(folder)
        assert loaded.level_tokens[0].tolist()[4:] == [-1] * 5

    @pytest.mark.parametrize(
        ("training", "cold"),
        [
            ({}, False),
            ({"train": {"cold_share": 0.15}}, True),
            ({"train": {"cold_share": 0}}, False),
            ({"train": {}}, False),
            ({"train": "yes"}, False),
        ],
    )
    def test_cold_starts_are_read_off_the_training(
        self, folder: Path, training: dict[str, Any], cold: bool
    ) -> None:
        edit(folder / MANIFEST, training=training)
        assert Bundle.load(folder).cold is cold

    def test_may_be_moved(self, folder: Path) -> None:
        assert Bundle.load(str(folder)).catalogue.item_ids == Bundle.load(folder).catalogue.item_ids


class TestStore:
    def make(self, store: Store, model: Path, folder: Path, name: str = "shop") -> Path:
        items = write_items(ITEMS, folder / "items.jsonl")
        return create_bundle(store, name=name, model=model, items=items, prompt=TEMPLATE)

    def test_versions_number_up(self, model: Path, tmp_path: Path) -> None:
        store = Store(tmp_path / "store")
        assert store.versions("shop") == []
        for version in (1, 2, 3):
            path = self.make(store, model, tmp_path)
            assert path == store.path("shop", version) == tmp_path / "store/shop" / str(version)
            assert Bundle.load(path).version == version
        assert store.versions("shop") == [1, 2, 3]
        assert self.make(store, model, tmp_path, "other").name == "1"
        assert sorted(os.listdir(store.root / "shop")) == ["1", "2", "3"]

    def test_numbers_sort_as_numbers_and_are_not_used_again(
        self, model: Path, tmp_path: Path
    ) -> None:
        store = Store(tmp_path / "store")
        self.make(store, model, tmp_path).rename(store.path("shop", 11))
        (store.root / "shop/2").mkdir()
        (store.root / "shop/notes").mkdir()
        assert store.versions("shop") == [11]
        assert self.make(store, model, tmp_path).name == "12"
        assert store.versions("shop") == [11, 12]

    def test_an_incomplete_version_is_passed_over(self, model: Path, tmp_path: Path) -> None:
        store = Store(tmp_path / "store")
        (store.path("shop", 1) / "model").mkdir(parents=True)
        assert store.versions("shop") == []
        made: list[Path] = []
        work = threading.Thread(
            target=lambda: made.append(self.make(store, model, tmp_path)), daemon=True
        )
        work.start()
        work.join(20)
        assert made == [store.path("shop", 2)]

    def test_publishers_at_the_same_time_get_different_numbers(
        self, good: Bundle, tmp_path: Path
    ) -> None:
        store = Store(tmp_path / "store")
        together = threading.Barrier(4, timeout=20)

        def fill(staging: Path) -> None:
            copy_into(good, staging)
            together.wait()

        threads = [
            threading.Thread(target=store.publish, args=(good.manifest, fill)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.versions("tiny") == [1, 2, 3, 4]
        assert [Bundle.load(store.path("tiny", v)).version for v in range(1, 5)] == [1, 2, 3, 4]

    @pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
    def test_a_failure_while_filling_leaves_nothing(
        self, good: Bundle, tmp_path: Path, error: BaseException
    ) -> None:
        def fill(staging: Path) -> None:
            copy_into(good, staging)
            raise error

        store = Store(tmp_path / "store")
        with pytest.raises(type(error)):
            store.publish(good.manifest, fill)
        assert leftovers(store) == []

    def test_a_bundle_that_is_not_valid_leaves_nothing(self, good: Bundle, tmp_path: Path) -> None:
        def fill(staging: Path) -> None:
            copy_into(good, staging)
            (staging / WEIGHTS).write_bytes(pickle.dumps({}))

        store = Store(tmp_path / "store")
        with pytest.raises(BundleError, match=f"{WEIGHTS} is a pickle"):
            store.publish(good.manifest, fill)
        assert leftovers(store) == []

    def test_a_failure_leaves_the_versions_there_are(
        self, good: Bundle, model: Path, tmp_path: Path
    ) -> None:
        store = Store(tmp_path / "store")
        self.make(store, model, tmp_path, "tiny")
        before = leftovers(store)
        with pytest.raises(BundleError):
            store.publish(good.manifest, lambda staging: None)
        assert leftovers(store) == before
        assert validate(store.path("tiny", 1)) == []


def copy_into(bundle: Bundle, staging: Path) -> None:
    shutil.copytree(bundle.path, staging, dirs_exist_ok=True)
    (staging / MANIFEST).unlink()


def leftovers(store: Store) -> list[Path]:
    """Everything below a store."""
    return sorted(store.root.rglob("*"))


class TestManifest:
    def test_no_folder(self, tmp_path: Path) -> None:
        assert sole_problem(tmp_path / "none") == f"{tmp_path / 'none'}: no such folder"

    def test_missing(self, folder: Path) -> None:
        (folder / MANIFEST).unlink()
        assert sole_problem(folder) == "manifest.json is missing: the bundle is incomplete"

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"name": "tiny",}'])
    def test_not_json(self, folder: Path, content: bytes) -> None:
        (folder / MANIFEST).write_bytes(content)
        assert sole_problem(folder).startswith("manifest.json: document: Invalid JSON")

    def test_not_an_object(self, folder: Path) -> None:
        (folder / MANIFEST).write_text("[]")
        assert sole_problem(folder).startswith("manifest.json: document: Input should be an object")

    def test_format_of_the_future(self, folder: Path) -> None:
        edit(folder / MANIFEST, format_version=2)
        assert sole_problem(folder) == "manifest.json: format_version: Input should be 1"

    @pytest.mark.parametrize("name", ["name", "version", "created", "sid", "prompt"])
    def test_missing_field(self, folder: Path, name: str) -> None:
        manifest = read_json(folder / MANIFEST)
        del manifest[name]
        (folder / MANIFEST).write_text(json.dumps(manifest))
        assert sole_problem(folder) == f"manifest.json: {name}: Field required"

    def test_every_wrong_field_gets_a_line(self, folder: Path) -> None:
        edit(folder / MANIFEST, version=0, name="Not A Name", colour="red")
        assert [problem.split(":")[1].strip() for problem in problems_of(folder)] == [
            "name",
            "version",
            "colour",
        ]

    @pytest.mark.parametrize(
        ("level", "message"),
        [
            ({"template": "<a_1>", "size": 4}, "'<a_1>' needs one {} for the code"),
            ({"template": "<a_{}>", "size": 10**9}, "has a codebook of 1000000000"),
        ],
    )
    def test_impossible_level(self, folder: Path, level: dict[str, Any], message: str) -> None:
        manifest = read_json(folder / MANIFEST)
        manifest["sid"]["levels"][0] = level
        edit(folder / MANIFEST, **manifest)
        problem = sole_problem(folder)
        assert problem.startswith("manifest.json: ")
        assert message in problem

    def test_prompt_without_a_place_for_the_history(self, folder: Path) -> None:
        edit(folder / MANIFEST, prompt={"text": "hello"})
        assert "must contain {history} exactly once" in sole_problem(folder)


class TestFiles:
    @pytest.mark.parametrize("name", [CATALOGUE, CONFIG, TOKENIZER, WEIGHTS])
    def test_missing(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        assert sole_problem(folder) == f"{name} is missing"

    @pytest.mark.parametrize("name", [CATALOGUE, CONFIG, TOKENIZER])
    def test_needed_and_not_in_the_manifest(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        seal(folder)
        assert sole_problem(folder) == f"{name} is not in the manifest"

    def test_wrong_size(self, folder: Path) -> None:
        size = (folder / CONFIG).stat().st_size
        with (folder / CONFIG).open("a") as file:
            file.write(" ")
        assert sole_problem(folder) == f"{CONFIG} has {size + 1} bytes, the manifest says {size}"

    def test_wrong_checksum(self, folder: Path) -> None:
        content = bytearray((folder / WEIGHTS).read_bytes())
        content[-1] ^= 1
        (folder / WEIGHTS).write_bytes(content)
        problem = sole_problem(folder)
        assert problem.startswith(f"{WEIGHTS} has the checksum ")
        assert file_entries(folder)[WEIGHTS].sha256[:12] in problem
        assert Manifest(**read_json(folder / MANIFEST)).files[WEIGHTS].sha256[:12] in problem

    @pytest.mark.parametrize("name", ["notes.txt", ".hidden", "model/extra/deep.json"])
    def test_stray(self, folder: Path, name: str) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
        assert sole_problem(folder) == f"{name} is not in the manifest"

    @pytest.mark.parametrize(
        "name", ["model/pytorch_model.bin", "quantizer.PT", "a.pth", "a.pkl", "a.ckpt", "a.pickle"]
    )
    @pytest.mark.parametrize("sealed", [True, False], ids=["listed", "stray"])
    def test_pickle_by_its_name(self, folder: Path, name: str, sealed: bool) -> None:
        (folder / name).write_bytes(b"harmless")
        if sealed:
            seal(folder)
        assert sole_problem(folder) == f"{name} is a pickle, which is never loaded"

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @pytest.mark.parametrize("name", ["model/generation_config.json", WEIGHTS, "quantizer/x.npy"])
    def test_pickle_under_an_innocent_name(self, folder: Path, name: str, protocol: int) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(pickle.dumps({"a": [1, 2]}, protocol))
        seal(folder)
        assert sole_problem(folder) == f"{name} is a pickle, which is never loaded"

    def test_pickle_as_torch_saves_it(self, folder: Path) -> None:
        (folder / "quantizer").mkdir()
        shutil.make_archive(str(folder / "quantizer/weights"), "zip", folder / "model")
        (folder / "quantizer/weights.zip").rename(folder / "quantizer/weights.safetensors")
        seal(folder)
        assert sole_problem(folder).startswith("quantizer/weights.safetensors is a pickle")

    def test_outside_the_folder(self, folder: Path) -> None:
        (folder.parent / "secret").write_text("x")
        manifest = read_json(folder / MANIFEST)
        entry = manifest["files"][CONFIG]
        names = ["../secret", "/etc/passwd", "model/../../secret"]
        edit(folder / MANIFEST, files={**manifest["files"], **dict.fromkeys(names, entry)})
        assert problems_of(folder) == [f"{name} leaves the bundle's folder" for name in names]

    def test_each_file_gets_a_line(self, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / "stray").write_text("x")
        (folder / CONFIG).write_text("{}")
        assert {problem.split()[0] for problem in problems_of(folder)} == {
            WEIGHTS,
            "stray",
            CONFIG,
        }


class TestIsPickle:
    @pytest.mark.parametrize("header", [0x280, 0x380, 0x480, 0x580])
    def test_weights_whose_header_begins_like_a_pickle_are_none(
        self, tmp_path: Path, header: int
    ) -> None:
        """A safetensors file begins with the length of its header, and that may be any number."""
        file = tmp_path / "model.safetensors"
        weights = {"w": np.zeros(2, np.float32)}
        save_file(weights, file, metadata={"x": ""})
        bare = int.from_bytes(file.read_bytes()[:8], "little")
        save_file(weights, file, metadata={"x": "y" * (header - bare)})
        assert file.read_bytes()[:2] == bytes([0x80, header >> 8])
        assert not is_pickle(file)

    @pytest.mark.parametrize("content", [b"", b"P", b"\x80", b"{}", b"PAR1", b"\x80\x80"])
    def test_other_beginnings(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "file").write_bytes(content)
        assert not is_pickle(tmp_path / "file")


class TestTokenizer:
    def test_broken(self, folder: Path) -> None:
        (folder / TOKENIZER).write_text('{"model": 1}')
        seal(folder)
        assert sole_problem(folder).startswith(f"{TOKENIZER}: ")

    def test_empty(self, folder: Path) -> None:
        Tokenizer(models.BPE()).save(str(folder / TOKENIZER))
        seal(folder)
        problems = problems_of(folder)
        assert len(problems) == 4
        assert all("are not one token each" in problem for problem in problems)

    def test_splits_sid_tokens(self, good: Bundle, folder: Path) -> None:
        levels = (good.spec.levels[0], Level("<b_{}>", 2), *good.spec.levels[2:])
        short = train_tokenizer([TEMPLATE.text], SidSpec(levels, extra=True), 300)
        save_tokenizer(short, folder / "model", MAX_LENGTH)
        seal(folder)
        pieces = short.encode("<b_2>").tokens
        assert len(pieces) > 1
        assert sole_problem(folder) == (
            "tokenizer: 2 SID tokens of level 2 are not one token each, such as <b_2>,"
            f" which becomes {pieces}"
        )

    def test_larger_than_the_weights(self, folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        name = "model.embed_tokens.weight"
        rows = len(weights[name])
        save_file({**weights, name: weights[name][:-3]}, folder / WEIGHTS)
        seal(folder)
        assert sole_problem(folder) == (
            f"model: the weights have {rows - 3} tokens, the tokenizer goes up to id {rows - 1}"
        )

    def test_smaller_than_the_weights_is_usual(self, folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        name = "model.embed_tokens.weight"
        padded = np.concatenate([weights[name], np.zeros((61, weights[name].shape[1]), np.float32)])
        save_file({**weights, name: padded}, folder / WEIGHTS)
        seal(folder)
        assert validate(folder) == []


class TestModel:
    @pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x08" + b"\0" * 7])
    def test_not_safetensors(self, folder: Path, content: bytes) -> None:
        (folder / WEIGHTS).write_bytes(content)
        seal(folder)
        assert sole_problem(folder).startswith("model/model.safetensors: not safetensors: ")

    def test_cut_short(self, folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(content[:-100])
        seal(folder)
        assert sole_problem(folder).startswith("model/model.safetensors: not safetensors: ")

    def test_without_an_embedding(self, folder: Path) -> None:
        save_file({"other": np.zeros(2, np.float32)}, folder / WEIGHTS)
        seal(folder)
        assert sole_problem(folder) == "model: no *.safetensors with model.embed_tokens.weight"

    def test_without_weights(self, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        seal(folder)
        assert sole_problem(folder) == "model: no *.safetensors with model.embed_tokens.weight"

    @pytest.mark.parametrize("positions", [0, 3, 4])
    def test_without_room(self, folder: Path, positions: int) -> None:
        edit(folder / CONFIG, max_position_embeddings=positions)
        seal(folder)
        assert sole_problem(folder) == (
            f"model: {positions} positions leave no room for a prompt and a SID"
        )

    @pytest.mark.parametrize(
        "content", ["", "[]", "{}", '{"max_position_embeddings": null}', "\udcff"]
    )
    def test_config_without_a_length(self, folder: Path, content: str) -> None:
        (folder / CONFIG).write_bytes(content.encode("utf-8", "surrogateescape"))
        seal(folder)
        assert sole_problem(folder).startswith("model/config.json: ")


class TestCatalogue:
    def test_codes_outside_the_codebook(self, good: Bundle, folder: Path) -> None:
        manifest = read_json(folder / MANIFEST)
        manifest["sid"]["levels"][1]["size"] = 3
        edit(folder / MANIFEST, **manifest)
        rows = np.flatnonzero(good.catalogue.codes[:, 1] == 3)[:3]
        assert problems_of(folder) == [
            f"catalogue: item {good.catalogue.item_ids[row]!r} has code 3 at level 2, outside 0..2"
            for row in rows
        ]

    def test_a_code_missing_where_the_spec_needs_one(self, folder: Path) -> None:
        manifest = read_json(folder / MANIFEST)
        manifest["sid"]["extra"] = False
        edit(folder / MANIFEST, **manifest)
        problems = problems_of(folder)
        assert len(problems) == 3
        assert all(f"has code {END} at level 4, outside 0.." in problem for problem in problems)

    def test_other_number_of_levels(self, folder: Path) -> None:
        manifest = read_json(folder / MANIFEST)
        manifest["sid"]["levels"].pop()
        edit(folder / MANIFEST, **manifest)
        assert sole_problem(folder) == "catalogue: codes have 4 levels, the spec 3"

    def test_two_items_with_one_id(self, folder: Path) -> None:
        def repeat(table: pa.Table) -> pa.Table:
            ids = table.column("item_id").to_pylist()
            ids[1:3] = [ids[0]] * 2
            return table.set_column(table.column_names.index("item_id"), "item_id", pa.array(ids))

        edit_table(folder, repeat)
        first = pq.read_table(folder / CATALOGUE).column("item_id")[0].as_py()
        assert sole_problem(folder) == f"catalogue: 3 items have the id {first!r}"

    def test_out_of_order(self, folder: Path) -> None:
        edit_table(folder, lambda table: table.take(list(range(len(table)))[::-1]))
        assert sole_problem(folder) == "catalogue: items are not in the order of their SIDs"

    def test_without_items(self, folder: Path) -> None:
        edit_table(folder, lambda table: table.slice(0, 0))
        assert sole_problem(folder) == "catalogue: there are no items"

    @pytest.mark.parametrize("name", ["item_id", "title", "popularity"])
    def test_without_a_column(self, folder: Path, name: str) -> None:
        edit_table(folder, lambda table: table.drop_columns([name]))
        assert sole_problem(folder) == f"catalogue.parquet: no column {name}"

    def test_without_codes(self, folder: Path) -> None:
        edit_table(folder, lambda table: table.drop_columns(["codes"]))
        assert sole_problem(folder).startswith("catalogue.parquet: not a catalogue: ")

    @pytest.mark.parametrize(
        "codes",
        [
            lambda n: pa.array([[0, 0, 0, 0]] * n),
            lambda n: pa.array([[0, 0, 0, None]] * n, pa.list_(pa.int32(), 4)),
            lambda n: pa.array([[0.0, 0.0, 0.0, 0.5]] * n, pa.list_(pa.float64(), 4)),
            lambda n: pa.array([[0, 0, 0, 2**32]] * n, pa.list_(pa.int64(), 4)),
            lambda n: pa.array(["0000"] * n),
        ],
        ids=["lists", "nulls", "floats", "wide", "text"],
    )
    def test_codes_of_another_kind(self, folder: Path, codes: Callable[[int], pa.Array]) -> None:
        edit_table(
            folder,
            lambda table: table.drop_columns(["codes"]).append_column("codes", codes(len(table))),
        )
        assert sole_problem(folder).startswith("catalogue.parquet: not a catalogue: ")

    def test_not_parquet(self, folder: Path) -> None:
        (folder / CATALOGUE).write_text("item_id,title\n")
        seal(folder)
        assert sole_problem(folder).startswith("catalogue.parquet: not a catalogue: ")

    def test_problems_of_all_parts_come_together(self, folder: Path) -> None:
        manifest = read_json(folder / MANIFEST)
        manifest["sid"]["levels"].pop()
        edit(folder / MANIFEST, **manifest)
        edit(folder / CONFIG, max_position_embeddings=2)
        seal(folder)
        assert [problem.split(":")[0] for problem in problems_of(folder)] == ["catalogue", "model"]


class TestCreateBundleRefuses:
    """Wrong input is refused with a message, and leaves nothing in the store."""

    def refusal(
        self,
        tmp_path: Path,
        model: Path,
        items: Path | list[Item],
        kind: type[ModelStoreError] = BundleError,
        name: str = "shop",
    ) -> str:
        store = Store(tmp_path / "store")
        file = write_items(items, tmp_path / "i.jsonl") if isinstance(items, list) else items
        with pytest.raises(kind) as caught:
            create_bundle(store, name=name, model=model, items=file, prompt=TEMPLATE)
        assert leftovers(store) == []
        return str(caught.value)

    def test_a_model_that_is_a_pickle(self, model: Path, tmp_path: Path) -> None:
        other = shutil.copytree(model, tmp_path / "model")
        (other / "model.safetensors").rename(other / "pytorch_model.bin")
        assert self.refusal(tmp_path, other, ITEMS) == (
            f"{other}: no *.safetensors (pytorch_model.bin is a pickle: convert it)"
        )

    def test_an_empty_model_folder(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, tmp_path, ITEMS)
        for name in ("config.json", "tokenizer.json", "*.safetensors"):
            assert f"{tmp_path}: no {name}" in message

    def test_a_model_that_lacks_a_shard(self, model: Path, tmp_path: Path) -> None:
        other = shutil.copytree(model, tmp_path / "model")
        index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
        (other / "model.safetensors.index.json").write_text(json.dumps(index))
        assert self.refusal(tmp_path, other, ITEMS) == f"{other}: no model-2.safetensors"

    def test_a_broken_tokenizer(self, model: Path, tmp_path: Path) -> None:
        other = shutil.copytree(model, tmp_path / "model")
        (other / "tokenizer.json").write_text("{}")
        assert "tokenizer.json: " in self.refusal(tmp_path, other, ITEMS)

    @pytest.mark.parametrize("name", ["Shop", "../shop", "", "a/b", ".shop"])
    def test_a_name_that_is_no_folder_name(self, model: Path, tmp_path: Path, name: str) -> None:
        assert "name" in self.refusal(tmp_path, model, ITEMS, name=name)

    @pytest.mark.parametrize("value", [None, "", 7, ["<a_1>"]])
    @pytest.mark.parametrize("name", ["sid", "item_id"])
    def test_an_item_without_sid_or_id(
        self, model: Path, tmp_path: Path, name: str, value: Any
    ) -> None:
        broken: list[Item] = [ITEMS[0], {**ITEMS[1], name: value}, *ITEMS[2:]]
        assert self.refusal(tmp_path, model, broken) == (
            f"item 2: {name} must be a non-empty string, not {value!r}"
        )

    def test_items_of_two_forms(self, model: Path, tmp_path: Path) -> None:
        mixed = [*ITEMS, {"item_id": "x", "sid": "<a_1><b_1><z_1>"}]
        message = self.refusal(tmp_path, model, mixed, SidError)
        assert message.startswith("1 SIDs do not have the form <a_0><b_0><c_0>")

    def test_sids_that_the_tokenizer_does_not_have(self, model: Path, tmp_path: Path) -> None:
        items = [*ITEMS, {"item_id": "x", "sid": "<a_77><b_1><c_1>"}]
        assert "1 SID tokens of level 1 are not one token each, such as <a_77>" in self.refusal(
            tmp_path, model, items
        )

    def test_attributes_of_mixed_types(self, model: Path, tmp_path: Path) -> None:
        mixed = [{**item, "price": "free" if i == 3 else 1.5} for i, item in enumerate(ITEMS)]
        assert self.refusal(tmp_path, model, mixed).startswith("attribute 'price': ")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("popularity", "high"),
            ("popularity", [1]),
            ("popularity_by_scene", 7),
            ("popularity_by_scene", {"home": "high"}),
        ],
    )
    def test_known_columns_of_another_kind(
        self, model: Path, tmp_path: Path, name: str, value: Any
    ) -> None:
        strange = [{**item, name: value} for item in ITEMS]
        assert name in self.refusal(tmp_path, model, strange)

    @pytest.mark.parametrize("value", [{}, [{}]])
    def test_an_attribute_that_cannot_be_stored(
        self, model: Path, tmp_path: Path, value: Any
    ) -> None:
        assert "catalogue" in self.refusal(
            tmp_path, model, [{**item, "more": value} for item in ITEMS]
        )

    def test_an_attribute_named_codes(self, model: Path, tmp_path: Path) -> None:
        assert "codes" in self.refusal(tmp_path, model, [{**item, "codes": 1} for item in ITEMS])

    def test_duplicate_ids(self, model: Path, tmp_path: Path) -> None:
        twice = [*ITEMS, {**ITEMS[4], "sid": ITEMS[5]["sid"]}]
        assert self.refusal(tmp_path, model, twice) == "catalogue: 2 items have the id 'item-4'"

    def test_no_items(self, model: Path, tmp_path: Path) -> None:
        assert self.refusal(tmp_path, model, []) == "there are no items"

    @pytest.mark.parametrize(
        ("line", "reason"),
        [("{oops}", "Expecting property name"), ("[1]", "not a JSON object"), ("7", "not a JSON")],
    )
    def test_malformed_lines_by_their_number(
        self, model: Path, tmp_path: Path, line: str, reason: str
    ) -> None:
        good = [json.dumps(item) for item in ITEMS]
        lines = [good[0], "", line, *good[1:], line]
        file = tmp_path / "items.jsonl"
        file.write_text("\n".join(lines))
        first, last = self.refusal(tmp_path, model, file).split("; ")
        assert first.startswith(f"items.jsonl, line 3: {reason}")
        assert last.startswith(f"items.jsonl, line {len(lines)}: {reason}")

    def test_a_file_that_is_not_utf_8(self, model: Path, tmp_path: Path) -> None:
        file = tmp_path / "items.jsonl"
        file.write_bytes(json.dumps(ITEMS[0]).encode() + b'\n{"item_id": "\xff"}\n')
        assert self.refusal(tmp_path, model, file).startswith("items.jsonl, line 2: ")

    @pytest.mark.parametrize("content", [b"plain text", gzip.compress(b'{"a": 1}\n' * 99)[:-9]])
    def test_a_file_that_is_not_gzip(self, model: Path, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "items.jsonl.gz"
        file.write_bytes(content)
        assert self.refusal(tmp_path, model, file).startswith("items.jsonl.gz: ")

    def test_no_file(self, model: Path, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, model, tmp_path / "none.jsonl")
        assert message.startswith("none.jsonl: ")

    def test_a_template_without_a_place_for_the_history(self) -> None:
        with pytest.raises(ValueError, match=r"must contain \{history\} exactly once"):
            PromptTemplate(text="no place")


class TestCreateBundle:
    def test_reads_gzip(self, model: Path, tmp_path: Path) -> None:
        plain = write_items(ITEMS, tmp_path / "items.jsonl")
        packed = tmp_path / "items.jsonl.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        store = Store(tmp_path / "store")
        paths = [
            create_bundle(store, name="shop", model=model, items=file, prompt=TEMPLATE)
            for file in (plain, packed)
        ]
        one, other = (Bundle.load(path) for path in paths)
        assert one.catalogue.table == other.catalogue.table
        assert one.sids == other.sids

    def test_title_and_popularity_may_be_missing(self, model: Path, tmp_path: Path) -> None:
        bare = [{"item_id": item["item_id"], "sid": item["sid"]} for item in ITEMS]
        bare[0] = {**ITEMS[0]}
        file = write_items(bare, tmp_path / "items.jsonl")
        store = Store(tmp_path / "store")
        path = create_bundle(store, name="shop", model=model, items=file, prompt=TEMPLATE)
        catalogue = Bundle.load(path).catalogue
        row = catalogue.row_of["item-0"]
        assert catalogue.popularity.sum() == catalogue.popularity[row] == ITEMS[0]["popularity"]
        assert [title for title in catalogue.titles if title] == [ITEMS[0]["title"]]

    def test_scenes_come_from_the_items(self, model: Path, tmp_path: Path) -> None:
        items = [
            {**item, "popularity_by_scene": {"home": i, "search": -i}}
            for i, item in enumerate(ITEMS)
        ]
        file = write_items(items, tmp_path / "items.jsonl")
        store = Store(tmp_path / "store")
        path = create_bundle(store, name="shop", model=model, items=file, prompt=TEMPLATE)
        bundle = Bundle.load(path)
        assert bundle.manifest.prompt.scenes == ("home", "search")
        best = {
            scene: bundle.catalogue.item_ids[bundle.catalogue.popular(scene)[0]]
            for scene in ("home", "search")
        }
        assert best == {"home": f"item-{len(ITEMS) - 1}", "search": "item-0"}
        assert bundle.catalogue.popular("no such").tolist() == bundle.catalogue.popular().tolist()

    def test_keeps_quantizer_training_and_metrics(self, model: Path, tmp_path: Path) -> None:
        quantizer = tmp_path / "q"
        quantizer.mkdir()
        save_file({"centroids": np.eye(3, dtype=np.float32)}, quantizer / "levels.safetensors")
        path = create_bundle(
            Store(tmp_path / "store"),
            name="shop",
            model=model,
            items=write_items(ITEMS, tmp_path / "items.jsonl"),
            prompt=TEMPLATE,
            quantizer=quantizer,
            training={"epochs": 3},
            metrics={"recall@10": 0.5},
        )
        manifest = Bundle.load(path).manifest
        assert (manifest.training, manifest.metrics) == ({"epochs": 3}, {"recall@10": 0.5})
        assert "quantizer/levels.safetensors" in manifest.files

    def test_leaves_other_files_of_the_model_behind(self, model: Path, tmp_path: Path) -> None:
        other = shutil.copytree(model, tmp_path / "model")
        (other / "training_args.bin").write_bytes(pickle.dumps({}))
        (other / "optimizer.pt").write_bytes(pickle.dumps({}))
        path = create_bundle(
            Store(tmp_path / "store"),
            name="shop",
            model=other,
            items=write_items(ITEMS, tmp_path / "items.jsonl"),
            prompt=TEMPLATE,
        )
        assert not [name for name in os.listdir(path / "model") if name.endswith((".bin", ".pt"))]

    def test_codebooks_are_those_of_the_vocabulary(self, good: Bundle) -> None:
        vocabulary = good.tokenizer.get_vocab()
        assert good.spec == infer_spec([item["sid"] for item in ITEMS], vocabulary)


class TestBlend:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Of a bundle that blends, to be broken."""
        return make_bundle(tmp_path, ITEMS, blend=random_blend(len(ITEMS))).path

    def test_it_follows_the_items_into_their_order(self, tmp_path: Path) -> None:
        blend = random_blend(len(ITEMS), weight=0.3)
        made = make_bundle(tmp_path, ITEMS, blend=blend)
        assert made.blend is not None
        assert made.blend.spec == blend.spec
        rows = [made.catalogue.row_of[item["item_id"]] for item in ITEMS]
        for i, row in enumerate(rows):
            there, votes = made.blend.neighbours.votes([row], blend.spec)
            here, expected = blend.neighbours.votes([i], blend.spec)
            assert votes.tolist() == expected.tolist()
            assert sorted(there.tolist()) == sorted(rows[other] for other in here)

    def test_a_bundle_without_a_table_blends_nothing(self, good: Bundle) -> None:
        assert good.blend is None

    def test_damaged(self, folder: Path) -> None:
        table = folder / NEIGHBOURS
        table.write_bytes(table.read_bytes()[:-1] + b"!")
        assert sole_problem(folder).startswith(f"{NEIGHBOURS} has the checksum ")

    def test_no_table(self, folder: Path) -> None:
        (folder / NEIGHBOURS).write_text("beside")
        seal(folder)
        assert sole_problem(folder).startswith(f"{NEIGHBOURS}: no table of neighbours: ")

    def test_of_another_catalogue(self, folder: Path) -> None:
        random_blend(31).neighbours.write(folder / NEIGHBOURS)
        seal(folder)
        assert sole_problem(folder) == f"{NEIGHBOURS}: 31 items, the catalogue has 30"

    def test_missing(self, folder: Path) -> None:
        (folder / NEIGHBOURS).unlink()
        assert sole_problem(folder) == f"{NEIGHBOURS} is missing"
        seal(folder)
        assert sole_problem(folder) == f"{NEIGHBOURS} has nothing to blend, {MANIFEST} has"

    def test_the_manifest_does_not_know_of_it(self, folder: Path) -> None:
        edit(folder / MANIFEST, blend=None)
        assert sole_problem(folder) == f"{MANIFEST} has nothing to blend, {NEIGHBOURS} has"

    @pytest.mark.parametrize("weight", [0, 1, -0.5, "much"])
    def test_an_impossible_weight(self, folder: Path, weight: Any) -> None:
        edit(folder / MANIFEST, blend={"weight": weight})
        assert "blend.weight" in sole_problem(folder)
