"""Engines find the best SIDs for a prompt. `create_engine` is the one way to get one."""

from typing import Any

from model_store.bundle import Bundle
from service.engine.base import Beam, Engine, EngineStats, Query
from service.engine.trace import Trace
from service.errors import EngineError

KINDS = ("torch", "vllm", "fake")

__all__ = ["KINDS", "Beam", "Engine", "EngineStats", "Query", "Trace", "create_engine"]


def create_engine(kind: str, bundle: Bundle, **options: Any) -> Engine:
    """The engine of a kind for a bundle, ready for queries.

    Raises `EngineError` for an unknown kind or option, and for a model that it cannot run.
    """
    # Imported here: an engine's libraries are loaded only by those who use it.
    match kind:
        case "torch":
            from service.engine.torch.engine import TorchEngine as Kind
        case "vllm":
            try:
                from service.engine.vllm.engine import (  # type: ignore[assignment]
                    VllmEngine as Kind,
                )
            except ImportError as error:
                raise EngineError(f"engine 'vllm': {error}; is vLLM installed?") from error
        case "fake":
            from service.engine.fake import FakeEngine as Kind  # type: ignore[assignment]
        case _:
            raise EngineError(f"no engine {kind!r}; there are {', '.join(KINDS)}")
    try:
        return Kind(bundle, **options)
    except TypeError as error:
        raise EngineError(f"engine {kind!r}: {error}") from error
