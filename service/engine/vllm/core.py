"""vLLM's engine core inside this process, without the layers that vLLM has above it.

Its `LLM` and servers verify, copy and detokenise every request by itself; a search makes twenty
alike at a time, knows that they are right, and reads token ids. So requests are built here, as
the core's own objects, and outputs are read as the core returns them.
"""

import copy
import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from model_store.adapters import Adapter
from service.engine.text import Text
from service.engine.vllm.mask import STATE, RowState

# isort: split
# First, because it sets the environment in which vLLM is imported.
from service.engine.vllm.options import EngineArgs, current_platform

# isort: split
from vllm.distributed.kv_transfer import kv_transfer_state
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams
from vllm.triton_utils import dispatcher
from vllm.v1.engine.core import EngineCore
from vllm.v1.executor import Executor
from vllm.v1.request import Request

from service.engine.vllm.tails import PROMPT, PromptTails

_PROCESSORS = "service.engine.vllm.processor_v{0}:SidProcessorV{0}"

_PUNICA_CPU = "service.engine.vllm.punica_cpu.MixedPunicaCPU"

_VLLM = threading.RLock()
"""vLLM keeps the context of a forward pass in globals: of several cores, one works at a time."""

_alive: set[int] = set()
"""The cores of this process. Closing the last of them tears down what they share."""


def _vars(value: Any) -> Mapping[str, Any]:
    found = vars(value)
    return found if isinstance(found, Mapping) else {}


class Prompt:
    """What the requests of one query share: the prompt's hashes and its keys and values.

    Hashes of its whole blocks are computed for the first request; its last block is computed by
    the first request too (see `tails`), which is `name`. Both are those of the `lora` adapter.
    """

    def __init__(
        self, hasher: Callable[[Request], list[Any]] | None, lora: LoRARequest | None
    ) -> None:
        self.name: str | None = None
        self.lora = lora
        self.hashes = None if hasher is None else self._hash
        self._hasher = hasher
        self._known: list[Any] | None = None

    def _hash(self, request: Request) -> list[Any]:
        """The hashes that `request` lacks; vLLM asks whenever a request has got new tokens."""
        assert self._hasher is not None
        if self._known is None:
            self._known = self._hasher(request)
            return self._known
        if not request.block_hashes:
            request.block_hashes.extend(self._known)
        return self._hasher(request)


class Core:
    """One model in vLLM. Everything here must be called by the thread that made it.

    `spare_rows` is how many requests more cost a step as much as another step: on a CPU 6 ms, in
    which time it runs some twenty; of a GPU it is an estimate.

    Raises what vLLM raises for a model or arguments that it cannot run.
    """

    def __init__(self, args: EngineArgs, adapters: Mapping[str, Adapter] | None = None) -> None:
        self._agent: Any = None
        with self._at_work(), _process_kept():
            if current_platform.is_cpu():
                # The one function that is compiled even in eager mode would need a C++ compiler.
                current_platform.simple_compile_backend = "eager"
                current_platform.get_punica_wrapper = lambda: _PUNICA_CPU
                # It looks for kernels in all modules there are, numba's among them, whose foreign
                # functions answer to any name, `__dict__` too (vLLM 0.32.0).
                dispatcher.vars = _vars
            config = args.create_engine_config()
            args.logits_processors = [_PROCESSORS.format(2 if config.use_v2_model_runner else 1)]
            config = args.create_engine_config()
            self._core = EngineCore(config, Executor.get_class(config), log_stats=False)
            _alive.add(id(self))
        self._adapters = {
            name: LoRARequest(name, number, str(adapter.path))
            for number, (name, adapter) in enumerate((adapters or {}).items(), start=1)
        }
        self.max_num_seqs: int = config.scheduler_config.max_num_seqs
        self.spare_rows = 16 if current_platform.is_cpu() else 64
        self.max_num_batched_tokens: int = config.scheduler_config.max_num_batched_tokens
        self._parameters: dict[int, SamplingParams] = {}

    def load_adapters(self) -> None:
        """Reads all of them: one that vLLM cannot run would end the core at its first request."""
        with self._at_work():
            for request in self._adapters.values():
                self._core.add_lora(request)

    def prompt(self, adapter: str | None = None) -> Prompt:
        """For a new query; `release` it when the query ends."""
        lora = self._adapters[adapter] if adapter is not None else None
        return Prompt(self._core.request_block_hasher, lora)

    def add(
        self, name: str, tokens: list[int], state: RowState, candidates: int, prompt: Prompt
    ) -> Request:
        """Asks for the best `candidates` tokens that `state` allows behind `tokens`.

        The first request of a prompt is the prompt alone.
        """
        prompt.name = prompt.name or name
        parameters = copy.copy(self._prototype(candidates))
        parameters.extra_args = {STATE: state, PROMPT: prompt.name}
        request = Request(
            name, tokens, parameters, None, lora_request=prompt.lora, block_hasher=prompt.hashes
        )
        self._core.add_request(request)
        return request

    def write(self, name: str, text: Text, ends: Collection[int]) -> None:
        """Asks for a text, up to one of the tokens `ends`; outputs come token by token."""
        parameters = SamplingParams(
            temperature=0.0,
            max_tokens=text.max_tokens,
            stop_token_ids=list(ends),
            detokenize=False,
            ignore_eos=True,
        )
        hasher = self._core.request_block_hasher
        self._core.add_request(
            Request(name, list(text.prompt), parameters, None, block_hasher=hasher)
        )

    def release(self, prompt: Prompt) -> None:
        """No request with this prompt will come any more."""
        tails = self._core.scheduler.connector
        if prompt.name is not None and isinstance(tails, PromptTails):
            tails.release(prompt.name)

    def step(self) -> Sequence[Any]:
        """Runs the model once and returns vLLM's outputs of the requests that are answered."""
        with self._at_work():
            outputs, executed = self._core.step_fn()
            self._core.post_step(executed)
        return outputs[0].outputs if outputs and 0 in outputs else ()

    def abort(self, names: list[str]) -> None:
        self._core.abort_requests(names)

    def close(self) -> None:
        with self._at_work():
            _alive.discard(id(self))
            if _alive:  # the core's own shutdown would take the others' process groups with it
                self._core.model_executor.shutdown()
                self._core.scheduler.shutdown()
            else:
                self._core.shutdown()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Holds vLLM's globals: the one that is a core's own is exchanged."""
        with _VLLM:
            others = kv_transfer_state._KV_CONNECTOR_AGENT
            kv_transfer_state._KV_CONNECTOR_AGENT = self._agent
            try:
                yield
            finally:
                self._agent = kv_transfer_state._KV_CONNECTOR_AGENT
                kv_transfer_state._KV_CONNECTOR_AGENT = others

    def _prototype(self, candidates: int) -> SamplingParams:
        if candidates not in self._parameters:
            self._parameters[candidates] = SamplingParams(
                temperature=0.0,
                max_tokens=1,
                logprobs=candidates,
                detokenize=False,
                ignore_eos=True,
            )
        return self._parameters[candidates]


@contextmanager
def _process_kept() -> Iterator[None]:
    """Undoes what starting vLLM changes for everyone else in the process."""
    set_num_threads, state, torch_state = torch.set_num_threads, random.getstate(), None
    torch_state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_num_threads = set_num_threads
        random.setstate(state)
        torch.set_rng_state(torch_state)
