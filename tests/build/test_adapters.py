"""Adapters are trained over the finished model, travel in the bundle, and answer their scenes."""

import importlib.util
import os
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bench.hugging_face import HuggingFaceSearch
from model_store.adapters import ADAPTER_FILES
from model_store.build.adapters import Adapters, check_scenes
from model_store.build.config import BuildConfig, load_config
from model_store.build.dataset import UserSequence, cuts_in
from model_store.build.evaluate import Case, in_scenes, metrics
from model_store.build.ingest import read_items, read_split
from model_store.build.rows import reordered
from model_store.bundle import Bundle
from model_store.errors import BuildError
from model_store.store import Store
from service.engine import Query, create_engine
from service.errors import EngineError
from service.prompt import PromptBuilder
from tests.build.test_pipeline import TINY, Built
from tests.engine.reference import assert_same, beams_of

SCENES = ("home", "promo")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """`tiny.toml` as wide as vLLM's CPU build wants it, with adapters for two of four scenes."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("adapted")
    changes = {
        "model": {"hidden": 128, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 64},
        "train": {"epochs": 2, "batch_tokens": 4096},
        "adapters": {"scenes": SCENES, "rank": 4, "learning_rate": 1e-2},
        "evaluate": {"sample": 0},
    }
    config = BuildConfig.model_validate(load_config(TINY).model_dump() | changes)
    found = Built(config, Store(folder / "store"), folder / "work")
    found.again()
    return found


def model_of(bundle: Bundle, scene: str | None) -> Any:
    """What the bundle's adapter makes of its model, or the model as it is."""
    base = AutoModelForCausalLM.from_pretrained(bundle.model_path, dtype=torch.float32)
    if scene not in bundle.adapters:
        return base.eval()
    path = bundle.adapters[str(scene)].path
    return PeftModel.from_pretrained(base, path).merge_and_unload().eval()


def test_the_bundle_has_them(built: Built) -> None:
    bundle = built.bundle
    assert {scene: adapter.rank for scene, adapter in bundle.adapters.items()} == {
        "home": 4,
        "promo": 4,
    }
    one, two = (load_file(bundle.adapters[scene].path / ADAPTER_FILES[1]) for scene in SCENES)
    assert len(one) == 2 * 7 * 2
    assert all(tensor.any() and not torch.equal(tensor, two[name]) for name, tensor in one.items())
    for adapter in bundle.adapters.values():  # nothing of this build's folders, nothing unordered
        config = (adapter.path / ADAPTER_FILES[0]).read_text()
        assert str(built.work) not in config
        assert '"down_proj",\n    "gate_proj",\n    "k_proj"' in config


def test_what_was_measured_is_what_each_scene_answers(built: Built) -> None:
    """Once more from outside of the build, with Hugging Face and PEFT over the published bundle."""
    bundle, items = built.bundle, read_items(built.work / "sids")
    cases = read_split(built.work / "ingest", items).test
    row_of = {
        tuple(code for code in codes if code >= 0): row
        for row, codes in enumerate(bundle.catalogue.codes.tolist())
    }

    def ranker(model: Any) -> Any:
        search, prompt = HuggingFaceSearch(model, bundle), PromptBuilder(bundle)

        def rank(cases: list[Case]) -> list[list[int]]:
            users = [case.user for case in cases]
            prompts = [prompt.build(u.items, u.profile, u.scene)[0] for u in users]
            found = [search.search(tokens, 20)[:10] for tokens in prompts]
            return [[row_of[codes] for codes, _ in beams] for beams in found]

        return reordered(rank, bundle, items)  # type: ignore[arg-type]

    report = (bundle.path / "report/report.md").read_text()
    for scene in ("promo", "cart"):  # with an adapter, and without
        inside = [case for case in cases if case.user.scene == scene]
        targets = [case.target for case in inside]
        served, base = (
            metrics(ranker(model_of(bundle, name))(inside), targets)["NDCG@10"]
            for name in (scene, None)
        )
        start = f"| {scene} | {len(inside)} |"
        [line] = [line for line in report.splitlines() if line.startswith(start)]
        shown = [float(cell.strip(" *")) for cell in line.split("|")[-3:-1]]
        assert shown == pytest.approx([served, base], abs=1e-4)
    overall = bundle.manifest.metrics
    assert overall["tiny model"] != overall["without adapters"]


@pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None and not os.environ.get("CI"),
    reason="vLLM is not installed",
)
def test_vllm_answers_each_scene_by_its_own(built: Built) -> None:
    bundle = built.bundle
    memory = {"kv_cache_memory_bytes": 2**28} if not torch.cuda.is_available() else {}
    rng = np.random.default_rng(3)
    prompts = [
        PromptBuilder(bundle).build(rng.integers(120, size=n).tolist(), {"性别": "女"})[0]
        for n in (1, 5, 20)
    ]
    answers = {}
    with create_engine("vllm", bundle, **memory) as engine:
        for scene in (*SCENES, None):
            queries = [Query(prompt, 10, adapter=scene) for prompt in prompts]
            answers[scene] = list(map(beams_of, engine.search_batch(queries)))
    for scene, found in answers.items():
        reference = HuggingFaceSearch(model_of(bundle, scene), bundle)
        for prompt, beams in zip(prompts, found, strict=True):
            assert_same(beams, reference.search(prompt, 10), 1e-3)
    for one, other, base in zip(*answers.values(), strict=True):
        assert len({tuple(codes for codes, _ in beams) for beams in (one, other, base)}) == 3


def test_an_engine_without_adapters_says_so(built: Built) -> None:
    with pytest.raises(EngineError, match="adapter"):
        create_engine("torch", built.bundle)


def test_a_scene_that_nobody_knows_stops_the_build_before_the_training(built: Built) -> None:
    users = [UserSequence("u", (1, 2, 3), scenes=("attic", "home", None))]
    check_scenes(Adapters(scenes=("home",)), users)
    with pytest.raises(BuildError, match=r"clicked in 'attic', only in: home$"):
        check_scenes(Adapters(scenes=("home", "attic")), users)
    with pytest.raises(BuildError, match="'garage', only in: cart, home, promo, search"):
        built.again(adapters={"scenes": ["garage"]}, vocabulary=401)
    assert not (built.work / "train.part").exists()


def test_the_clicks_of_a_scene() -> None:
    scenes = ("home", "promo", "home", "home", None)
    users = [
        UserSequence("u", (1, 2, 3, 4, 5), scenes=scenes),
        UserSequence("v", (1, 2), scene="home"),
        UserSequence("w", (1, 2), scenes=("home", "promo")),
    ]
    rng = np.random.default_rng(0)
    drawn = [(u.user_id, cut) for _ in range(60) for u, cut in cuts_in(users, "home", rng)]
    assert set(drawn) == {("u", 2), ("u", 3), ("v", 1)}
    assert Counter(user for user, _ in drawn) == {"u": 60, "v": 60}
    cold = {
        (u.user_id, cut) for _ in range(60) for u, cut in cuts_in(users, "home", rng, cold=True)
    }
    assert cold == {("u", 0), ("u", 2), ("u", 3), ("v", 0), ("v", 1), ("w", 0)}


def test_each_case_is_ranked_by_its_scene() -> None:
    def always(row: int) -> Any:
        return lambda cases: [[row, case.target] for case in cases]

    cases = [
        Case(UserSequence("u", (1,), scene=scene), i)
        for i, scene in enumerate(("home", None, "attic", "promo", "home"))
    ]
    ranker = in_scenes(always(70), {"home": always(71), "promo": always(72)})
    assert ranker(cases) == [[71, 0], [70, 1], [70, 2], [72, 3], [71, 4]]
    assert ranker(cases[1:3]) == [[70, 1], [70, 2]]
