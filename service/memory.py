"""Whether one more version fits into memory, before anything of it is read; and how the C library
keeps what is free.

Counted is what stays: weights, keys and values kept of prompts, and the catalogue. The work space
of a batch is not, so that what fits narrowly may still be too much under load.
"""

import ctypes
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model_store.adapters import tensor_shapes
from model_store.bundle import CATALOGUE, EMBEDDING, MODEL
from model_store.errors import BundleError
from service.engine.torch.engine import PREFIX_BYTES
from service.errors import DoesNotFit

_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
_GIB = 1 << 30

GIVE_BACK_S = 10.0
"""How often memory that was freed goes back, as jemalloc has it by itself: 4 to 9 ms of a thread,
for 20 to 30 MB under load."""

_MALLOPT = {
    "MALLOC_ARENA_MAX": (-8, 2),
    "MALLOC_MMAP_THRESHOLD_": (-3, 1 << 20),
    "MALLOC_TRIM_THRESHOLD_": (-1, 8 << 20),
}
"""Parameters of glibc's malloc.h and what is best for a service, by the variable that sets each."""

# Measured, see docs/models-in-service.md: columns and texts, as Arrow and as Python has them, and
# the arrays of trie, ledger and popularity.
_PER_ITEM = 1000
_PER_STORED_BYTE = 4


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a version will hold: weights and cache on `device`, the catalogue on the host."""

    weights: int
    cache: int
    catalogue: int
    device: str = "cpu"

    @classmethod
    def of(cls, folder: Path, engine: str, options: Mapping[str, Any]) -> "Need":
        """Of the bundle in `folder`, from the headers of its files. Raises `BundleError`."""
        catalogue = _catalogue(folder / CATALOGUE)
        if engine != "torch":
            return cls(0, 0, catalogue)
        device = str(options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
        usual = "float32" if device == "cpu" else "bfloat16"
        each = _BYTES.get(str(options.get("dtype") or usual), 4)
        sizes = {name: math.prod(s) for name, s in tensor_shapes(folder / MODEL).items()}
        embedding = sizes.get(EMBEDDING, 0)
        # The head is a matrix of its own, and what is looked up stays as precise as it was.
        head = 0 if "lm_head.weight" in sizes else embedding
        weights = (sum(sizes.values()) + head) * each + (4 * embedding if each == 1 else 0)
        return cls(weights, int(options.get("prefix_bytes", PREFIX_BYTES)), catalogue, device)

    def check(self, version: str) -> None:
        """Raises `DoesNotFit` where there is less, with the figures."""
        on_device = {"weights": self.weights, "cache of prompts": self.cache}
        on_host = {"catalogue": self.catalogue}
        if self.device == "cpu":
            _check(version, {**on_device, **on_host}, *host_room())
        else:
            _check(version, on_device, torch.cuda.mem_get_info(self.device)[0], self.device)
            _check(version, on_host, *host_room())


def host_room(groups: Path = Path("/sys/fs/cgroup")) -> tuple[int, str]:
    """Bytes that this process may still take, and what sets that limit: the machine, or a control
    group that the process is in."""
    rooms = [(int(psutil.virtual_memory().available), "the machine")]
    rooms += [(room, "the control group") for room in _group_rooms(groups)]
    return min(rooms)


def _group_rooms(groups: Path, membership: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """What is left in each group around this process that has a limit, of either version."""
    if not membership.exists():
        return
    for line in membership.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names, root = ("memory.max", "memory.current", "inactive_file"), groups
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = groups / "memory"
        else:
            continue
        # A container may see its own group as the root, and still the path as its host has it.
        inside = root / path.lstrip("/")
        for group in (inside, *inside.parents):
            if not group.is_relative_to(root):
                break
            yield from _left(group, *names)


def _left(group: Path, limit: str, used: str, reclaimable: str) -> Iterator[int]:
    try:
        most = (group / limit).read_text().strip()
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        if most != "max":
            taken = int((group / used).read_text()) - int(stat.get(reclaimable, 0))
            yield max(0, int(most) - taken)
    except (OSError, ValueError):  # the root has no limit, and a host may hide the others
        return


def _check(version: str, parts: Mapping[str, int], room: int, of: str) -> None:
    needed = sum(parts.values())
    if needed > room:
        listed = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items())
        raise DoesNotFit(
            f"{version} needs {_gib(needed)} GiB ({listed}), and {of} has {_gib(room)} GiB left"
        )


def _gib(size: int) -> str:
    return f"{size / _GIB:.3g}"


def _catalogue(file: Path) -> int:
    try:
        stored = pq.ParquetFile(file).metadata
    except (pa.ArrowException, OSError) as error:
        raise BundleError([f"{file.name}: not a catalogue: {error}"]) from error
    groups = [stored.row_group(i).total_byte_size for i in range(stored.num_row_groups)]
    return int(_PER_ITEM * stored.num_rows + _PER_STORED_BYTE * sum(groups))


def keep_little() -> None:
    """Lets the C library keep little of what is freed, and Arrow nothing of its own, unless their
    own variables say how much.

    All threads have two arenas between them (those that there are by then stay): by default it
    makes up to eight for each core, and what is free in one is of no use to another. And a block
    of 1 MiB or more, as a large batch has them, goes back to the system when it is freed: by
    default each that is freed raises that bound, up to 32 MiB, and then blocks that live long
    and short leave holes between each other. At 128 KiB there would be fewer still, but a search
    alone took 5 to 10% longer, for the pages that it gave back each time.

    Arrow has an allocator of its own, mimalloc, that asks for huge pages: it held 42 MB for 1 MB
    of a catalogue, and grew by steps.
    """
    for variable, (parameter, value) in _MALLOPT.items():
        if variable not in os.environ:
            _glibc("mallopt", parameter, value)
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        pa.set_memory_pool(pa.system_memory_pool())


def give_back() -> None:
    """Returns memory that has been freed to the system; some milliseconds, not for the event loop.

    The C library keeps what lies between blocks in use for whoever asks next: after a swap a
    process would hold a cache of prompts for nobody, and while prompts of all sizes come and go,
    as much again as they have.
    """
    _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> None:
    """Calls a function of it; nothing where another C library is used, which has none."""
    found = getattr(ctypes.CDLL(None), function, None)
    if found is not None:
        found(*arguments)
