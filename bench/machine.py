"""What machine this is, and how fast it multiplies and reads: what a floor is made of.

Both rates are the best of all tries in this process, and each call tries again: what else runs on
the machine makes a rate lower, never higher, and a floor that is too low flatters nobody.
"""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST_ROWS = 4096
"""A product with more rows runs at the rate of one with as many, and takes longer to measure."""

_FEW_ROWS = 256
_TRY_S = 0.2
_MOST_BYTES = 1 << 30

_multiplying: dict[tuple[int, int, int, str, torch.dtype], float] = {}
_reading: dict[tuple[int, str], float] = {}


def describe(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Processor, cores that this process may use, threads, memory, and versions."""
    place = torch.device(device)
    return {
        "processor": _processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu",
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def multiply_rate(rows: int, inner: int, columns: int, device: str, dtype: torch.dtype) -> float:
    """Operations a second of a product (rows, inner) by (inner, columns), 2 for each of its
    multiplications. More than `MOST_ROWS` rows count as so many.

    A product may be done as several of fewer rows, so it is as fast as any of those that were
    measured; a small one is tried in any case, because nothing interrupts what is short.
    """
    for count in {min(rows, _FEW_ROWS), min(rows, MOST_ROWS)}:
        rate = _try_multiplying(count, inner, columns, torch.device(device), dtype)
        key = (count, inner, columns, device, dtype)
        _multiplying[key] = max(rate, _multiplying.get(key, 0.0))
    return max(
        rate
        for (count, *shape), rate in _multiplying.items()
        if count <= rows and shape == [inner, columns, device, dtype]
    )


def read_rate(size: int, device: str) -> float:
    """Bytes a second at which `size` bytes are read again and again.

    What fits a cache is read from it, so `size` is that of the weights in question. More than
    1 GiB counts as so much.
    """
    # A product with a vector reads its matrix once and does next to nothing else.
    columns, size, place = 1024, min(size, _MOST_BYTES), torch.device(device)
    matrix = torch.ones(max(1, size // (4 * columns)), columns, device=place)
    vector = torch.ones(columns, device=place)
    ways: tuple[Callable[[], Tensor], ...] = (lambda: matrix @ vector, matrix.sum)
    seconds = min(_best(way, place) for way in ways)
    _reading[size, device] = max(matrix.nbytes / seconds, _reading.get((size, device), 0.0))
    return _reading[size, device]


def _try_multiplying(
    rows: int, inner: int, columns: int, device: torch.device, dtype: torch.dtype
) -> float:
    x = torch.randn(rows, inner, device=device, dtype=dtype)
    weight = torch.randn(columns, inner, device=device, dtype=dtype)
    ways: list[Callable[[], Tensor]] = [lambda: torch.nn.functional.linear(x, weight)]
    if device.type == "cpu":
        # Packed once into oneDNN's layout, as inference may do: whichever is faster counts.
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""))
    return 2 * rows * inner * columns / min(_best(way, device) for way in ways)


@torch.inference_mode()
def _best(work: Callable[[], Tensor], device: torch.device) -> float:
    """Fewest seconds of at least five tries, the first aside."""
    tries: list[float] = []
    started = time.perf_counter()
    while len(tries) < 6 or time.perf_counter() - started < _TRY_S:
        before = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        tries.append(time.perf_counter() - before)
    return min(tries[1:])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
