"""LoRA adapters in a bundle: packed as PEFT saves them, and refused when anything is wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from model_store.bundle import MANIFEST, Bundle
from model_store.errors import BundleError
from model_store.store import Store, create_bundle
from service.cli import cli
from tests.model_store.test_bundle import edit, problems_of, read_json, seal, sole_problem
from tests.service.conftest import SCENE_TEMPLATE
from tests.tiny import TEMPLATE, make_bundle, random_items, write_items

ITEMS = random_items(30, (4, 4, 4), seed=8)
RANKS = {"cart": 2, "home": 8}
HOME = "adapters/home"
CONFIG = f"{HOME}/adapter_config.json"
WEIGHTS = f"{HOME}/adapter_model.safetensors"
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("adapters")
    return make_bundle(folder, ITEMS, prompt=SCENE_TEMPLATE, adapters=RANKS)


@pytest.fixture
def folder(good: Bundle, tmp_path: Path) -> Path:
    """A copy of the good bundle, to be broken."""
    return shutil.copytree(good.path, tmp_path / "bundle")


@pytest.fixture
def saved(good: Bundle, tmp_path: Path) -> Path:
    """A copy of what PEFT saved for the good bundle."""
    return shutil.copytree(good.path.parents[2] / "adapters-tiny", tmp_path / "saved")


def edit_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    seal(folder)


def test_a_bundle_knows_them_by_scene(good: Bundle) -> None:
    assert {scene: adapter.rank for scene, adapter in good.adapters.items()} == RANKS
    for scene, adapter in good.adapters.items():
        assert adapter.path == good.path / "adapters" / scene
    packed = [name for name in good.manifest.files if name.startswith("adapters/")]
    names = ("adapter_config.json", "adapter_model.safetensors")
    assert packed == [f"adapters/{scene}/{name}" for scene in RANKS for name in names]


def test_checksums_cover_them(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    assert f"{WEIGHTS} has the checksum" in sole_problem(folder)
    (folder / HOME / "adapter_model.bin").write_bytes(b"\x80\x02")
    assert any(f"{HOME}/adapter_model.bin is a pickle" in each for each in problems_of(folder))


class TestRefused:
    def test_a_scene_that_the_bundle_does_not_know(self, folder: Path) -> None:
        (folder / HOME).rename(folder / "adapters/attic")
        seal(folder)
        assert sole_problem(folder) == (
            "adapters/attic: no such scene; the bundle knows home, cart"
        )
        prompt = {**read_json(folder / MANIFEST)["prompt"], "scenes": []}
        edit(folder / MANIFEST, prompt=prompt)
        assert problems_of(folder)[1] == "adapters/cart: no such scene; the bundle knows no scenes"

    @pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
    def test_a_missing_file(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        seal(folder)
        assert sole_problem(folder) == f"{HOME}: {Path(name).name} is missing"

    @pytest.mark.parametrize(
        ("values", "problem"),
        [
            ({"peft_type": "IA3"}, "peft_type: Input should be 'LORA'"),
            ({"r": 0}, "r: Input should be greater than or equal to 1"),
            ({"r": "8"}, "r: Input should be a valid integer"),
            ({"lora_alpha": -1}, "lora_alpha: Input should be greater than 0"),
        ],
    )
    def test_a_configuration(self, folder: Path, values: dict[str, object], problem: str) -> None:
        edit(folder / CONFIG, **values)
        seal(folder)
        assert sole_problem(folder) == f"{HOME}: adapter_config.json: {problem}"

    def test_a_configuration_that_is_not_json(self, folder: Path) -> None:
        (folder / CONFIG).write_text("{oops")
        seal(folder)
        assert "adapter_config.json: document: Invalid JSON" in sole_problem(folder)

    def test_weights_that_are_not_safetensors(self, folder: Path) -> None:
        (folder / WEIGHTS).write_text("plain text")
        seal(folder)
        assert "adapter_model.safetensors: not safetensors" in sole_problem(folder)

    @pytest.mark.parametrize(
        "name",
        [
            "base_model.model.model.embed_tokens.weight",
            "base_model.model.model.embed_tokens.lora_embedding_A",
            "base_model.model.lm_head.weight",
            "base_model.model.lm_head.lora_A.weight",
        ],
    )
    def test_a_vocabulary_of_its_own(self, folder: Path, name: str) -> None:
        edit_weights(folder, lambda tensors: tensors.update({name: np.ones((4, 4), np.float32)}))
        assert "changes the embeddings or the head" in sole_problem(folder)

    @pytest.mark.parametrize(
        "values",
        [{"modules_to_save": ["embed_tokens"]}, {"trainable_token_indices": [1, 2]}],
    )
    def test_a_vocabulary_that_was_trained(self, folder: Path, values: dict[str, object]) -> None:
        edit(folder / CONFIG, **values)
        seal(folder)
        assert "changes the embeddings or the head" in sole_problem(folder)

    def test_modules_saved_whole(self, folder: Path) -> None:
        edit(folder / CONFIG, modules_to_save=["norm"])
        seal(folder)
        assert "modules_to_save: norm; only LoRA pairs" in sole_problem(folder)

    @pytest.mark.parametrize("name", [f"{LAYER}.lora_magnitude_vector", f"{LAYER}.bias"])
    def test_more_than_pairs(self, folder: Path, name: str) -> None:
        edit_weights(folder, lambda tensors: tensors.update({name: np.ones(4, np.float32)}))
        assert sole_problem(folder) == (
            f"{HOME}: 1 tensors are not LoRA pairs of a projection, such as {name}"
        )

    def test_nothing_in_it(self, folder: Path) -> None:
        edit_weights(folder, dict.clear)
        assert sole_problem(folder) == f"{HOME}: holds no LoRA pair of a projection"

    def test_half_a_pair(self, folder: Path) -> None:
        def halve(tensors: dict[str, np.ndarray]) -> None:
            del tensors[f"{LAYER}.lora_B.weight"]

        edit_weights(folder, halve)
        assert sole_problem(folder).endswith(
            "model.layers.0.self_attn.q_proj has only one half of its pair"
        )

    def test_another_model(self, folder: Path) -> None:
        def widen(tensors: dict[str, np.ndarray]) -> None:
            for name in tensors:
                if name.endswith("lora_A.weight"):
                    tensors[name] = np.ones((8, 1000), np.float32)

        edit_weights(folder, widen)
        assert "do not fit weights of" in sole_problem(folder)
        assert "more like this" in sole_problem(folder)

    def test_more_layers_than_the_model_has(self, folder: Path) -> None:
        def add(tensors: dict[str, np.ndarray]) -> None:
            for side in "AB":
                tensors[f"{LAYER.replace('.0.', '.77.')}.lora_{side}.weight"] = np.ones((8, 8))

        edit_weights(folder, add)
        assert "the model has no model.layers.77.self_attn.q_proj" in sole_problem(folder)

    def test_another_rank_than_it_says(self, folder: Path) -> None:
        edit(folder / CONFIG, r=4)
        seal(folder)
        assert "has rank 8, adapter_config.json says 4" in sole_problem(folder)
        edit(folder / CONFIG, rank_pattern={"_proj": 8})
        seal(folder)
        assert Bundle.load(folder).adapters["home"].rank == 8


class TestCreate:
    def make(self, good: Bundle, folder: Path, saved: Path, **more: object) -> Path:
        return create_bundle(
            Store(folder / "store"),
            name="shop",
            model=good.model_path,
            items=write_items(ITEMS, folder / "items.jsonl"),
            adapters=saved,
            prompt=TEMPLATE.model_copy(update=more),
        )

    def test_without_named_scenes_they_name_them(
        self, good: Bundle, tmp_path: Path, saved: Path
    ) -> None:
        bundle = Bundle.load(self.make(good, tmp_path, saved))
        assert bundle.manifest.prompt.scenes == tuple(bundle.adapters) == ("cart", "home")

    def test_named_scenes_win(self, good: Bundle, tmp_path: Path, saved: Path) -> None:
        with pytest.raises(BundleError, match=r"adapters/cart: no such scene; .* home"):
            self.make(good, tmp_path, saved, scenes=("home",))

    def test_lacking_files_are_named(self, good: Bundle, tmp_path: Path, saved: Path) -> None:
        weights = saved / "home/adapter_model.safetensors"
        weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(BundleError, match=r"no adapter_model.safetensors \(.*is a pickle"):
            self.make(good, tmp_path, saved)
        with pytest.raises(BundleError, match="no folder of an adapter"):
            self.make(good, tmp_path, tmp_path / "nowhere")

    def test_from_the_command_line(self, good: Bundle, tmp_path: Path, saved: Path) -> None:
        template = tmp_path / "prompt.txt"
        template.write_text(TEMPLATE.text)
        items = write_items(ITEMS, tmp_path / "items.jsonl")
        arguments = [
            *("bundle", "create", "--model", good.model_path, "--items", items),
            *("--template", template, "--name", "shop", "--out", tmp_path / "store"),
            *("--adapters", saved),
        ]
        made = CliRunner().invoke(cli, list(map(str, arguments)))
        assert made.exit_code == 0, made.stderr
        shown = CliRunner().invoke(cli, ["bundle", "inspect", made.stdout.strip()])
        assert "cart (rank 2), home (rank 8)" in shown.stdout
