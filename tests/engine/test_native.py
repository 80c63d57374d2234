"""Our kernels against torch's operators, pass by pass: what blocks and tiles could get wrong."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from service.engine.torch.config import ModelConfig
from service.engine.torch.forward import Cache, Forward, Step
from service.engine.torch.model import Model
from service.engine.torch.native import kernels, load
from service.engine.torch.native.model import NativeModel, _Rows
from service.engine.torch.prefixes import NOTHING, Prefix
from service.engine.torch.weights import Weights
from tests.engine.reference import require_kernels

# Nothing is a multiple of a register, a tile or a panel, and the inner size needs two blocks.
VOCABULARY, LENGTH = 523, 400
LEVELS = [torch.arange(100, 137), torch.tensor([400, 7, 300, 522, 0])]
SIZES = {
    "odd": {"hidden_size": 76, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 22},
    "one": {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 8},
    "wide": {
        "hidden_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 80,
    },
}
Pair = tuple[Forward, Forward]

# Registers of other widths make other blocks: AVX2's, and those that every x86 has.
BUILDS = ("as installed", *(["x86-64-v3", "x86-64-v2"] if platform.machine() == "x86_64" else []))
SOURCES = Path(__file__).parents[2]


@pytest.fixture(params=[1, 2], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=BUILDS)
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The kernels as they are compiled for this processor, and for lesser ones."""
    require_kernels()
    library = kernels()
    if request.param != "as installed":
        folder = tmp_path_factory.mktemp(request.param)
        command = [
            sys.executable,
            "setup.py",
            "-q",
            "build_ext",
            "-b",
            str(folder),
            "-t",
            str(folder),
        ]
        march = {"SIDREC_MARCH": request.param}
        subprocess.run(command, cwd=SOURCES, env=os.environ | march, check=True)
        [file] = folder.rglob("_kernels*.so")
        library = load(file)
        if library is None:
            pytest.skip(f"this processor does not run {request.param}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.engine.torch.native.model.kernels", lambda: library)
        yield


@pytest.fixture(scope="module", params=SIZES)
def pair(
    request: pytest.FixtureRequest, built: None, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    folder: Path = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    config = Qwen3Config(
        **SIZES[request.param],
        vocab_size=VOCABULARY,
        num_hidden_layers=2,
        intermediate_size=1050,
        max_position_embeddings=LENGTH,
        attention_bias=True,
        tie_word_embeddings=False,
    )
    model = Qwen3ForCausalLM(config)
    for name, weight in model.named_parameters():
        # Norms and biases too, which a new model has at one and zero.
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    model.save_pretrained(folder)
    ours, cpu = ModelConfig.load(folder), torch.device("cpu")
    return (
        NativeModel(ours, Weights(folder, ours, cpu), LEVELS),
        Model(ours, Weights(folder, ours, cpu), LEVELS, torch.float32),
    )


@pytest.fixture(params=[512, 8])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows of a pass that the kernels have at once: all of these tests' passes, or few."""
    rows: int = request.param
    monkeypatch.setattr("service.engine.torch.native.model._ROWS", rows)
    return rows


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found[:, : expected.shape[1]], expected, rtol=1e-4, atol=2e-5)


def prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def same_cache(found: Cache, expected: Cache) -> None:
    for mine, yours in zip(found.layers, expected.layers, strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-4, atol=2e-5)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("lengths", [(1,), (13,), (370,), (30, 1, 2, 200, 12)])
@torch.inference_mode()
def test_a_search_from_prompt_to_codes(pair: Pair, lengths: tuple[int, ...]) -> None:
    asked, queries = prompts(*lengths), len(lengths)
    starts = [model.prefill(asked, [NOTHING] * queries, 60) for model in pair]
    close(starts[0][1], starts[1][1])
    generator = torch.Generator().manual_seed(0)
    first, filled = 0, torch.zeros(queries, 0, dtype=torch.bool)
    for behind, width in enumerate((20, 1, 26)):
        # Some queries have fewer prefixes than others, or none, and none comes query by query.
        count = torch.randint(0, width + 1, (queries,), generator=generator)
        count[-1] = width
        query = torch.repeat_interleave(torch.arange(queries), count)
        slot = torch.cat([torch.arange(n) for n in count.tolist()])
        filled = torch.cat([filled, torch.arange(width) < count[:, None]], dim=1)
        sees = (torch.rand(len(query), first + width, generator=generator) < 0.5) & filled[query]
        sees[torch.arange(len(query)), first + slot] = True
        token = torch.randint(VOCABULARY, (len(query),), generator=generator)
        parts = [token, query, slot, torch.full_like(token, behind), sees]
        if queries > 1:
            mixed = torch.randperm(len(query), generator=generator)
            parts = [part[mixed] for part in parts]
        token, query, slot, behinds, sees = parts
        step = Step(token, query, slot, width, behinds, sees)
        hidden = [model.decode(cache, step) for model, (cache, _) in zip(pair, starts, strict=True)]
        close(*hidden)
        first += width
        rows = [len(token) // 3, len(token) - len(token) // 3]
        found, expected = (
            model.logprobs(h, list(zip(rows, (0, 1), strict=True)))
            for model, h in zip(pair, hidden, strict=True)
        )
        for mine, yours, codes in zip(found, expected, LEVELS, strict=True):
            assert mine.shape[1] == len(codes)
            close(mine, yours)
        assert pair[0].likeliest(hidden[0][:1]) == pair[1].likeliest(hidden[1][:1])
    ours, theirs = (cache for cache, _ in starts)
    for layer in theirs.layers:  # torch runs a row for a place that nobody fills, too
        layer[:, :, theirs.prompt : theirs.used].mul_(filled[:, None, :, None])
    same_cache(ours, theirs)


@pytest.mark.usefixtures("at_once")
@torch.inference_mode()
def test_what_is_known_of_a_prompt_is_not_run_again(pair: Pair) -> None:
    [whole, other] = prompts(180, 50)
    native, plain = pair
    cache, _ = plain.prefill([whole], [NOTHING], 0)
    known = Prefix(150, torch.stack([layer[0] for layer in cache.layers]))
    got, hidden = native.prefill([other, whole], [NOTHING, known], 5)
    expected, right = plain.prefill([other, whole], [NOTHING, NOTHING], 5)
    close(hidden, right)
    same_cache(got, expected)


@torch.inference_mode()
def test_work_space_grows_with_a_prompt_and_not_with_a_batch(
    pair: Pair, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    native, seen = pair[0], list[int]()
    run = NativeModel._run_at_once

    def noted(self: NativeModel, rows: _Rows) -> None:
        seen.append(len(rows.x))
        run(self, rows)

    monkeypatch.setattr(NativeModel, "_run_at_once", noted)
    lengths = [3, 4, 5, 100, 1, 1, 6] * 10
    native.prefill(prompts(*lengths), [NOTHING] * len(lengths), 0)
    assert sum(seen) == sum(lengths)
    assert max(seen) <= max(100, at_once)
    assert len(seen) <= 2 * sum(lengths) / at_once + 1


@torch.inference_mode()
def test_logits_far_apart_overflow_nothing(pair: Pair) -> None:
    native, plain = pair
    _, hidden = plain.prefill(prompts(9), [NOTHING], 0)
    # A norm hides the size of a row, so one number stands out instead.
    hidden = hidden.clone()
    hidden[0, 3] = 1e6
    width = native.prefill(prompts(1), [NOTHING], 0)[1].shape[1]
    padded = torch.nn.functional.pad(hidden, (0, width - hidden.shape[1]))
    [found], [expected] = native.logprobs(padded, [(1, 0)]), plain.logprobs(hidden, [(1, 0)])
    assert torch.isfinite(found).all()
    close(found, expected)
