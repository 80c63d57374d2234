"""The torch engine against Hugging Face: same SIDs, same order, same scores."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from model_store.bundle import Bundle
from model_store.store import Store, create_bundle
from service.engine import Query, create_engine
from service.engine.torch.engine import TorchEngine
from service.engine.torch.model import Model
from service.errors import EngineError
from tests.engine.reference import (
    assert_same,
    beams_of,
    every_score,
    hugging_face_beams,
    require_kernels,
)
from tests.tiny import (
    ARCHITECTURES,
    MAX_LENGTH,
    TEMPLATE,
    make_bundle,
    random_items,
    write_items,
    write_model,
)

BEAMS = 20
# Many items for few codes: SIDs share prefixes, some collide, and some are prefixes of others.
ITEMS = random_items(500, (10, 10, 10), seed=4, extra_share=0.3)
SPREAD = (3, 4, 6, 7, 9, 13, 17, 24, 36, 61)


def reference_model(bundle: Bundle) -> Any:
    model = AutoModelForCausalLM.from_pretrained(bundle.model_path, dtype=torch.float32)
    return model.eval()


def random_prompts(bundle: Bundle, lengths: Sequence[int], *, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    vocabulary = bundle.tokenizer.get_vocab_size()
    return [rng.integers(1, vocabulary, length).tolist() for length in lengths]


def tensor_names(model: Path) -> set[str]:
    with safe_open(model / "model.safetensors", "numpy") as tensors:
        return set(tensors.keys())


def rebuilt(
    bundle: Bundle, folder: Path, *, config: dict[str, Any] | None = None, name: str = "variant"
) -> Bundle:
    """A bundle of the model in `folder`, whose config.json gets some other values."""
    file = folder / "config.json"
    if config:
        file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    items = write_items(ITEMS, folder / "items.jsonl")
    store = Store(bundle.path.parents[1])
    return Bundle.load(create_bundle(store, name=name, model=folder, items=items, prompt=TEMPLATE))


@pytest.fixture(params=[True, False], ids=["native", "torch"])
def native(request: pytest.FixtureRequest) -> bool:
    """In our own kernels, and in torch's."""
    if request.param:
        require_kernels()
    return bool(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def bundle(request: pytest.FixtureRequest, folder: Path) -> Bundle:
    architecture: str = request.param
    return make_bundle(folder, ITEMS, architecture=architecture, name=architecture)


@pytest.fixture(scope="module")
def qwen2(folder: Path) -> Bundle:
    return make_bundle(folder, ITEMS, architecture="qwen2", name="plain")


class TestSearch:
    def test_same_beams_as_generate(self, bundle: Bundle, native: bool) -> None:
        model = reference_model(bundle)
        prompts = random_prompts(bundle, SPREAD * 3)
        with TorchEngine(bundle, device="cpu", native=native) as engine:
            found = engine.search_batch([Query(prompt, BEAMS) for prompt in prompts])
        for prompt, beams in zip(prompts, found, strict=True):
            assert len(beams) == BEAMS
            assert_same(beams_of(beams), hugging_face_beams(model, bundle, prompt, BEAMS))

    @pytest.mark.parametrize("length", [1, 2, MAX_LENGTH - 4])
    def test_shortest_and_longest_prompt(self, qwen2: Bundle, length: int, native: bool) -> None:
        model = reference_model(qwen2)
        assert qwen2.max_prompt_tokens == MAX_LENGTH - 4
        [prompt] = random_prompts(qwen2, [length])
        with TorchEngine(qwen2, device="cpu", native=native) as engine:
            [beams] = engine.search_batch([Query(prompt, BEAMS)])
        assert_same(beams_of(beams), hugging_face_beams(model, qwen2, prompt, BEAMS))

    @pytest.mark.parametrize("width", [2, 7, 50])
    def test_other_widths(self, qwen2: Bundle, width: int, native: bool) -> None:
        model = reference_model(qwen2)
        [prompt] = random_prompts(qwen2, [12], seed=width)
        with TorchEngine(qwen2, device="cpu", native=native) as engine:
            [beams] = engine.search_batch([Query(prompt, width)])
        assert_same(beams_of(beams), hugging_face_beams(model, qwen2, prompt, width))

    def test_more_beams_than_sids(self, folder: Path, native: bool) -> None:
        items = random_items(9, (3, 3), seed=1, extra_share=0.4)
        bundle = make_bundle(folder, items, name="few")
        model = reference_model(bundle)
        [prompt] = random_prompts(bundle, [10])
        with TorchEngine(bundle, device="cpu", native=native) as engine:
            [beams] = engine.search_batch([Query(prompt, BEAMS)])
        expected = hugging_face_beams(model, bundle, prompt, BEAMS)
        assert_same(beams_of(beams), expected)
        assert len(expected) == len({item["sid"] for item in items})


class TestReference:
    """The two ways of computing what is right agree, so a fault in one cannot hide."""

    def test_generate_agrees_with_scoring_every_sid(self, folder: Path) -> None:
        items = random_items(25, (4, 4), seed=2, extra_share=0.4)
        bundle = make_bundle(folder, items, name="reference")
        model = reference_model(bundle)
        for prompt in random_prompts(bundle, SPREAD[:4]):
            every = every_score(model, bundle, prompt)
            assert_same(hugging_face_beams(model, bundle, prompt, 40), every)


class TestModels:
    """What else a Llama-family model may look like."""

    @pytest.fixture(autouse=True)
    def _kernels(self, native: bool) -> None:
        self.native = native

    def check(self, bundle: Bundle) -> None:
        model = reference_model(bundle)
        prompts = random_prompts(bundle, (4, 90), seed=9)
        with TorchEngine(bundle, device="cpu", native=self.native) as engine:
            found = engine.search_batch([Query(prompt, BEAMS) for prompt in prompts])
        for prompt, beams in zip(prompts, found, strict=True):
            assert_same(beams_of(beams), hugging_face_beams(model, bundle, prompt, BEAMS))

    def variant(self, folder: Path, base: Bundle, **settings: Any) -> Path:
        """A model folder like that of `base`, with other settings and weights to match."""
        raw = json.loads((base.model_path / "config.json").read_text())
        model = write_model(folder, base.spec, raw["model_type"])
        config = type(reference_model(base).config)(**{**raw, **settings})
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config).save_pretrained(model)
        return model

    @pytest.mark.parametrize(
        "scaling",
        [
            {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
                "rope_theta": 500_000.0,
            },
        ],
        ids=["linear", "llama3"],
    )
    def test_rope_scaling(self, bundle: Bundle, tmp_path: Path, scaling: dict[str, Any]) -> None:
        model = self.variant(tmp_path / "m", bundle, rope_parameters=scaling)
        scaled = rebuilt(bundle, model)
        with TorchEngine(scaled, device="cpu", native=False) as engine:
            assert isinstance(engine._model, Model)
            assert engine._model.config.rope["rope_type"] == scaling["rope_type"]
        self.check(scaled)

    def test_rope_settings_as_older_libraries_wrote_them(
        self, qwen2: Bundle, tmp_path: Path
    ) -> None:
        modern = self.variant(
            tmp_path / "m",
            qwen2,
            rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 777.0},
        )
        file = modern / "config.json"
        raw = json.loads(file.read_text())
        del raw["rope_parameters"]
        file.write_text(json.dumps(raw))
        old = {"rope_theta": 777.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
        self.check(rebuilt(qwen2, modern, config=old))

    def test_head_tied_to_the_embedding_or_not(self, bundle: Bundle, tmp_path: Path) -> None:
        tied = "lm_head.weight" not in tensor_names(bundle.model_path)
        model = self.variant(tmp_path / "m", bundle, tie_word_embeddings=not tied)
        assert ("lm_head.weight" in tensor_names(model)) == tied
        self.check(rebuilt(bundle, model))

    @pytest.mark.parametrize("head_dim", [8, 24])
    def test_heads_that_are_not_an_even_share(
        self, folder: Path, tmp_path: Path, head_dim: int
    ) -> None:
        base = make_bundle(folder, ITEMS, architecture="llama", name=f"llama-{head_dim}")
        self.check(rebuilt(base, self.variant(tmp_path / "m", base, head_dim=head_dim)))

    def test_biases_on_every_projection(self, folder: Path, tmp_path: Path) -> None:
        base = make_bundle(folder, ITEMS, architecture="llama", name="llama-bias")
        model = self.variant(tmp_path / "m", base, attention_bias=True, mlp_bias=True)
        loaded = AutoModelForCausalLM.from_pretrained(model)
        for name, weight in loaded.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight)
        loaded.save_pretrained(model)
        self.check(rebuilt(base, model))

    @pytest.mark.parametrize("kv_heads", [1, 4])
    def test_other_numbers_of_key_heads(self, qwen2: Bundle, tmp_path: Path, kv_heads: int) -> None:
        model = self.variant(tmp_path / "m", qwen2, num_key_value_heads=kv_heads)
        self.check(rebuilt(qwen2, model))

    def test_sharded_weights(self, qwen2: Bundle, tmp_path: Path) -> None:
        model = self.variant(tmp_path / "m", qwen2)
        loaded = AutoModelForCausalLM.from_pretrained(model)
        (model / "model.safetensors").unlink()
        loaded.save_pretrained(model, max_shard_size="60KB")
        assert len(list(model.glob("model-*.safetensors"))) > 2
        self.check(rebuilt(qwen2, model))


class TestRefuses:
    """A model that the engine cannot run is refused by the name of what is wrong."""

    def refusal(self, folder: Path, base: Bundle, config: dict[str, Any]) -> str:
        model = write_model(folder / "m", base.spec)
        strange = rebuilt(base, model, config=config, name="strange")
        with pytest.raises(EngineError) as caught:
            create_engine("torch", strange, device="cpu")
        return str(caught.value)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"architectures": ["MistralForCausalLM"]}, "architecture 'MistralForCausalLM' is not"),
            ({"architectures": []}, "architecture '(none named)' is not"),
            ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
            (
                {"rope_parameters": None, "rope_scaling": {"type": "dynamic"}},
                "rope_type 'dynamic'",
            ),
            ({"use_sliding_window": True}, "use_sliding_window: only full attention"),
            ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
            ({"quantization_config": {"bits": 4}}, "quantization_config: only unquantised"),
        ],
    )
    def test_settings(
        self, qwen2: Bundle, tmp_path: Path, config: dict[str, Any], message: str
    ) -> None:
        assert self.refusal(tmp_path, qwen2, config).startswith(message)

    def test_a_missing_weight(self, qwen2: Bundle, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, qwen2, {"num_hidden_layers": 4})
        assert message == "the weights lack model.layers.3.self_attn.q_proj.weight"

    def test_adapters(self, tmp_path: Path) -> None:
        bundle = make_bundle(tmp_path, random_items(20, (4, 4)), adapters={"cart": 2, "home": 8})
        with pytest.raises(
            EngineError, match=r"scenes cart, home, .*--engine vllm, or merge each adapter"
        ):
            create_engine("torch", bundle)

    def test_unknown_engine_and_option(self, qwen2: Bundle) -> None:
        with pytest.raises(EngineError, match="no engine 'jax'; there are torch, vllm, fake"):
            create_engine("jax", qwen2)
        with pytest.raises(EngineError, match=r"engine 'torch': .*warp"):
            create_engine("torch", qwen2, warp=9)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"dtype": "float64"}, "dtype 'float64' is none of float32, bfloat16, int8"),
            ({"device": "meta", "dtype": "int8"}, "dtype 'int8' runs on a CPU only"),
            ({"device": "abacus"}, "device 'abacus'"),
            ({"dtype": "int8", "native": True}, "native kernels are for a CPU in float32"),
        ],
    )
    def test_type_and_device(self, qwen2: Bundle, options: dict[str, Any], message: str) -> None:
        with pytest.raises(EngineError, match=message):
            create_engine("torch", qwen2, **options)
