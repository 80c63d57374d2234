"""Tensor parallelism for real: a model on two processes finds what it finds on one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model_store.bundle import Bundle
from service.engine import Query, create_engine
from service.settings import Settings
from tests.engine.in_parallel import BEAMS
from tests.system import missing


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is None:
        missing("vllm is not installed")
    if (os.cpu_count() or 1) < 2:
        missing("vLLM gives each of its processes a core of its own")
    bundle = Bundle.load(Settings.model_fields["bundle"].default)
    rng = np.random.default_rng(3)
    prompts = [rng.integers(5, 500, n).tolist() for n in (3, 33, 70, 41)]
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(prompts))
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.in_parallel", file],
        # On a machine of one NUMA node vLLM wants to be told which process has which core.
        env=os.environ | {"VLLM_CPU_OMP_THREADS_BIND": "0|1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["processes"] == 2
    assert told["after"] == "EngineDead"
    with create_engine("torch", bundle) as engine:
        right = engine.search_batch([Query(prompt, BEAMS) for prompt in prompts])
    for found, expected in zip(told["beams"], right, strict=True):
        assert [tuple(codes) for codes, _ in found] == [tuple(beam.codes) for beam in expected]
        scores = [score for _, score in found]
        assert scores == pytest.approx([beam.score for beam in expected], abs=1e-3)
