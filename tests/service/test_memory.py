"""What a version will take, against what it takes; and how much there is to take."""

import ctypes
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest
import torch
from starlette.testclient import TestClient

from model_store.adapters import tensor_shapes
from model_store.bundle import Bundle
from model_store.errors import BundleError
from service import app
from service.engine.torch.engine import PREFIX_BYTES
from service.errors import DoesNotFit
from service.memory import Need, _group_rooms, give_back, host_room
from service.settings import Settings

GIB = 1 << 30


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.load(Settings.model_fields["bundle"].default)


def test_of_the_demo(demo: Bundle) -> None:
    need = Need.of(demo.path, "torch", {"device": "cpu"})
    shapes = tensor_shapes(demo.model_path)
    parameters = sum(map(math.prod, shapes.values()))
    head = math.prod(shapes["model.embed_tokens.weight"])
    assert "lm_head.weight" not in shapes
    assert need.weights == 4 * (parameters + head)
    assert need.cache == PREFIX_BYTES
    assert 1000 * len(demo.catalogue) < need.catalogue < 3000 * len(demo.catalogue)
    assert need.device == "cpu"


@pytest.mark.parametrize(("dtype", "share"), [("bfloat16", 1 / 2), ("int8", 1 / 4)])
def test_smaller_numbers_take_less(demo: Bundle, dtype: str, share: float) -> None:
    whole = Need.of(demo.path, "torch", {"device": "cpu"}).weights
    options = {"device": "cpu", "dtype": dtype, "prefix_bytes": 7}
    need = Need.of(demo.path, "torch", options)
    embedding = math.prod(tensor_shapes(demo.model_path)["model.embed_tokens.weight"])
    assert need.weights == whole * share + (4 * embedding if dtype == "int8" else 0)
    assert need.cache == 7


def test_other_engines_see_to_it_themselves(demo: Bundle) -> None:
    need = Need.of(demo.path, "vllm", {})
    assert (need.weights, need.cache) == (0, 0)
    assert need.catalogue > 0


def test_files_that_cannot_be_read(demo: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="catalogue"):
        Need.of(tmp_path, "torch", {})


def test_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    need = Need(3 * GIB, GIB // 2, GIB // 4)
    monkeypatch.setattr("service.memory.host_room", lambda: (4 * GIB, "the machine"))
    need.check("shop 2")
    monkeypatch.setattr("service.memory.host_room", lambda: (2 * GIB, "the machine"))
    with pytest.raises(DoesNotFit) as caught:
        need.check("shop 2")
    assert str(caught.value) == (
        "shop 2 needs 3.75 GiB (weights 3, cache of prompts 0.5, catalogue 0.25), and the machine"
        " has 2 GiB left"
    )


def test_too_little_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GIB, 80 * GIB))
    need = Need(3 * GIB, GIB // 2, GIB // 4, "cuda:1")
    with pytest.raises(DoesNotFit, match=r"needs 3.5 GiB .*, and cuda:1 has 1 GiB left"):
        need.check("shop 2")
    monkeypatch.setattr("service.memory.host_room", lambda: (0, "the machine"))
    with pytest.raises(DoesNotFit, match=r"needs 0.25 GiB \(catalogue 0.25\), and the machine"):
        Need(0, 0, GIB // 4, "cuda").check("shop 2")


def test_there_is_some_room_here() -> None:
    room, of = host_room()
    assert 0 < room < 1 << 50
    assert of in ("the machine", "the control group")


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_control_groups_of_version_2(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/pods/one\n")
    stat = "anon 5\ninactive_file 30"
    group(tmp_path / "pods", memory__max=1000, memory__current=400, memory__stat=stat)
    group(tmp_path / "pods" / "one", memory__max="max", memory__current=9, memory__stat=stat)
    assert list(_group_rooms(tmp_path, membership)) == [630]
    group(tmp_path / "pods" / "one", memory__max=500)
    assert list(_group_rooms(tmp_path, membership)) == [521, 630]


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    # As in a container: the path is that of the host, the files are those of the container.
    membership.write_text("3:cpuset:/\n4:memory:/docker/abc\n0::/\n")
    group(
        tmp_path / "memory",
        memory__limit_in_bytes=100,
        memory__usage_in_bytes=300,
        memory__stat="total_inactive_file 50",
    )
    assert list(_group_rooms(tmp_path, membership)) == [0]
    assert list(_group_rooms(tmp_path, tmp_path / "none")) == []


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="of glibc")
def test_what_a_thread_freed_goes_back_to_the_system() -> None:
    last: list[torch.Tensor] = []
    _with_holes(last)
    before = _resident()
    give_back()
    assert before - _resident() > 60e6


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="of glibc")
def test_a_service_gives_it_back_by_itself(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "GIVE_BACK_S", 0.05)
    last: list[torch.Tensor] = []
    service = app.create_app(Settings(bundle=bundle.path, engine="fake", state_dir=tmp_path))
    with TestClient(service):
        before = _resident()
        _with_holes(last)
        end = time.monotonic() + 10
        while _resident() - before > 20e6:
            assert time.monotonic() < end
            time.sleep(0.02)


def _with_holes(last: list[torch.Tensor]) -> None:
    """Frees 80 MB on a thread, in blocks too small to be mapped; one behind them goes to `last`,
    so that they do not go back by themselves."""

    def work() -> None:
        several = [torch.ones(20_000) for _ in range(1000)]
        last.append(torch.ones(20_000))
        del several

    thread = Thread(target=work)
    thread.start()
    thread.join()


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


_ARENAS = """
import ctypes, threading
from service.memory import keep_little

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
{call}
met = threading.Barrier(12)

def work():
    block = libc.malloc(20_000)
    met.wait()
    libc.free(block)

threads = [threading.Thread(target=work) for _ in range(12)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
file = libc.fopen({file!r}.encode(), b"w")
libc.malloc_info(0, file), libc.fclose(file)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="of glibc")
@pytest.mark.parametrize(
    ("call", "chosen", "shared"),
    [
        ("", {}, False),
        ("keep_little()", {}, True),
        ("keep_little()", {"MALLOC_ARENA_MAX": "9"}, False),
    ],
)
def test_threads_share_two_arenas(
    tmp_path: Path, call: str, chosen: dict[str, str], shared: bool
) -> None:
    file = tmp_path / "info.xml"
    code = _ARENAS.format(call=call, file=str(file))
    subprocess.run([sys.executable, "-c", code], env=_without_malloc() | chosen, check=True)
    arenas = file.read_text().count("<heap ")
    assert arenas == 2 if shared else arenas > 2


_FREED = """
import ctypes, psutil
from service.memory import keep_little

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
{call}
resident = psutil.Process().memory_info

def block():
    address = libc.malloc(2 << 20)
    libc.memset(address, 1, 2 << 20)
    return address

libc.free(libc.malloc(16 << 20))  # by which the bound would rise
before = resident().rss
blocks = [block() for _ in range(100)]
for i, address in enumerate(blocks):
    if i % 4 != 3:
        libc.free(address)
print((resident().rss - before) >> 20)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="of glibc")
@pytest.mark.parametrize(
    ("call", "chosen", "least", "most"),
    [
        ("", {}, 180, 220),
        ("keep_little()", {}, 40, 65),
        ("keep_little()", {"MALLOC_MMAP_THRESHOLD_": "33554432"}, 180, 220),
    ],
)
def test_large_blocks_leave_no_holes(
    call: str, chosen: dict[str, str], least: int, most: int
) -> None:
    """Of 100 blocks of 2 MiB every fourth stays."""
    code = _FREED.format(call=call)
    run = [sys.executable, "-c", code]
    found = subprocess.run(run, env=_without_malloc() | chosen, check=True, capture_output=True)
    assert least <= int(found.stdout) <= most


@pytest.mark.parametrize(
    ("chosen", "used"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")]
)
def test_arrow_has_no_memory_of_its_own(chosen: dict[str, str], used: str) -> None:
    code = """
import pyarrow
from service.memory import keep_little

keep_little()
before = pyarrow.system_memory_pool().bytes_allocated()
array = pyarrow.array(range(1000))
print(pyarrow.default_memory_pool().backend_name)
print(pyarrow.system_memory_pool().bytes_allocated() - before >= array.nbytes)
"""
    run = [sys.executable, "-c", code]
    env = _without_malloc() | chosen
    found = subprocess.run(run, env=env, check=True, capture_output=True, text=True)
    assert found.stdout.split() == [used, str(used == "system")]


def _without_malloc() -> dict[str, str]:
    ours = ("MALLOC_", "ARROW_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
