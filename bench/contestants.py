"""Who can search: the torch engine, Hugging Face, our engine on vLLM, and vLLM's own beam search.

A contestant answers all prompts of a call and says how long that took by its own clock. Those that
bring vLLM live in a process each, which is stopped while others work; the rest share ours.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench.timing import timed
from model_store.bundle import Bundle
from service.engine import Query, create_engine

Prompts = Sequence[Sequence[int]]
Answers = list[list[tuple[int, ...]]] | None
"""Codes of the SIDs found, best first, for each prompt; None from a search without constraint."""

Search = Callable[[Prompts, int], tuple[float, Answers]]
"""From prompts and a beam width to seconds and answers."""

TORCH, HUGGING_FACE, VLLM = "torch engine", "Hugging Face generate", "our engine on vLLM"
STOCK, STOCK_INSIDE = "vLLM beam_search", "vLLM beam_search, in-process"
WITH_VLLM = (VLLM, STOCK, STOCK_INSIDE)

_HF_BATCHES = (1, 4, 16)
_QUICK_S = 1.0
_END = "end"
_END_S = 30.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What all contestants share.

    beams:   the widest search to come
    device:  "cpu" or "cuda", in fp32 or bf16
    options: of the torch engine, its device aside
    """

    bundle: Bundle
    beams: int
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.device == "cpu" else torch.bfloat16


def start(name: str, setup: Setup, stack: ExitStack) -> Search:
    """A contestant that lives as long as `stack`."""
    return (_elsewhere if name in WITH_VLLM else _here)(name, setup, stack)


def _here(name: str, setup: Setup, stack: ExitStack) -> Search:
    if name == HUGGING_FACE:
        return BestBatch(setup)
    if name in (STOCK, STOCK_INSIDE):
        return _stock(name, setup, stack)
    if name == TORCH:
        engine = create_engine("torch", setup.bundle, device=setup.device, **setup.options)
    else:
        engine = create_engine("vllm", setup.bundle)
    stack.enter_context(engine)

    def search(prompts: Prompts, beams: int) -> tuple[float, Answers]:
        queries = [Query(prompt, beams) for prompt in prompts]
        seconds, found = timed(lambda: engine.search_batch(queries))
        return seconds, [[beam.codes for beam in one] for one in found]

    return search


class BestBatch:
    """Hugging Face at the batch size that suits it best: the sizes are tried, growing, when a
    number of prompts, their length and a beam width come for the first time."""

    def __init__(self, setup: Setup) -> None:
        from transformers.utils import logging

        from bench.hugging_face import HuggingFaceSearch

        logging.disable_progress_bar()
        self._model = HuggingFaceSearch.of(setup.bundle, device=setup.device, dtype=setup.dtype)
        self._sizes: dict[tuple[int, int, int], int] = {}

    def __call__(self, prompts: Prompts, beams: int) -> tuple[float, Answers]:
        size = self.size(prompts, beams)
        seconds, found = timed(lambda: self._search(prompts, beams, size))
        return seconds, [[codes for codes, _ in one] for one in found]

    def size(self, prompts: Prompts, beams: int) -> int:
        """Prompts of one call of `generate`."""
        cell = (len(prompts), round(max(map(len, prompts)) / 50), beams)
        if cell not in self._sizes:
            self._sizes[cell] = self._best_size(prompts, beams)
        return self._sizes[cell]

    def _search(self, prompts: Prompts, beams: int, size: int) -> list[Any]:
        return [
            answer
            for start in range(0, len(prompts), size)
            for answer in self._model.search_batch(prompts[start : start + size], beams)
        ]

    def _best_size(self, prompts: Prompts, beams: int) -> int:
        best, least = 1, float("inf")
        for size in _HF_BATCHES:
            if size > len(prompts) or len(prompts) == 1:
                break
            work = partial(self._search, prompts[:size], beams, size)
            seconds = timed(work)[0]
            if seconds < _QUICK_S:  # the first time was the warm-up
                seconds = timed(work)[0]
            if seconds / size > least:
                break
            best, least = size, seconds / size
        return best


def _stock(name: str, setup: Setup, stack: ExitStack) -> Search:
    """vLLM's own search, spared the constraint, which it does not know."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(name == STOCK))
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    from vllm import LLM
    from vllm.sampling_params import BeamSearchParams

    bundle = setup.bundle
    llm = LLM(
        str(bundle.model_path),
        dtype=str(setup.dtype).removeprefix("torch."),
        enforce_eager=True,
        max_logprobs=2 * setup.beams,
        max_model_len=bundle.max_length,
    )
    stack.callback(llm.llm_engine.engine_core.shutdown)

    def search(prompts: Prompts, beams: int) -> tuple[float, Answers]:
        wanted = BeamSearchParams(
            beam_width=beams, max_tokens=bundle.spec.depth, temperature=0.0, ignore_eos=True
        )
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return timed(lambda: llm.beam_search(asked, wanted))[0], None

    return search


def _elsewhere(name: str, setup: Setup, stack: ExitStack) -> Search:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    threads = torch.get_num_threads()
    arguments = (theirs, name, setup.bundle.path, setup.beams, setup.device, threads)
    process = context.Process(target=_serve, args=arguments, name=name)
    process.start()
    theirs.close()

    def receive() -> Any:
        try:
            return ours.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"{name} ended with status {process.exitcode}") from None

    def tell(signal_number: int) -> None:
        """To its process and those that it has started: vLLM's poll while they wait."""
        assert process.pid
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)

    def end() -> None:
        tell(signal.SIGCONT)
        if process.is_alive():
            ours.send(_END)
        process.join(_END_S)
        process.kill()

    stack.callback(end)
    receive()  # it is ready
    tell(signal.SIGSTOP)

    def search(prompts: Prompts, beams: int) -> tuple[float, Answers]:
        tell(signal.SIGCONT)
        ours.send((prompts, beams))
        answer: tuple[float, Answers] = receive()
        tell(signal.SIGSTOP)
        return answer

    return search


def _serve(pipe: Connection, name: str, path: Path, beams: int, device: str, threads: int) -> None:
    """The life of a contestant's process: ready, then call by call, until told to end."""
    os.setpgid(0, 0)
    torch.set_num_threads(threads)
    with ExitStack() as stack:
        search = _here(name, Setup(Bundle.load(path), beams, device), stack)
        pipe.send("ready")
        while (call := pipe.recv()) != _END:
            pipe.send(search(*call))
