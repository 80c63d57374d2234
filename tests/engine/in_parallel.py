"""A vLLM engine whose model lies on two processes, in a process of its own, for vLLM keeps what it
knows of its neighbours in globals: `python -m tests.engine.in_parallel PROMPTS.json`.

Prints as JSON what it found, and what became of the engine when one of the two was killed.
"""

import json
import sys
from pathlib import Path

import psutil

from model_store.bundle import Bundle
from service.engine import Query, create_engine
from service.errors import EngineDead
from service.settings import Settings

BEAMS = 20
_LARGE = 100_000_000  # bytes


def main(file: Path) -> None:
    bundle = Bundle.load(Settings.model_fields["bundle"].default)
    queries = [Query(prompt, BEAMS) for prompt in json.loads(file.read_text())]
    with create_engine("vllm", bundle, tensor_parallel_size=2) as engine:
        found = engine.search_batch(queries)
        # The other child is Python's own, which keeps account of shared memory.
        workers = [p for p in psutil.Process().children() if p.memory_info().rss > _LARGE]
        workers[-1].kill()
        try:
            engine.search_batch(queries)
        except EngineDead:
            after = "EngineDead"
        else:
            after = "nothing"
    beams = [[(list(beam.codes), beam.score) for beam in of_one] for of_one in found]
    print(json.dumps({"beams": beams, "processes": len(workers), "after": after}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
