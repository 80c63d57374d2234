"""The torch engine on a GPU against itself on the CPU: `python -m tests.engine.gpu`.

CI has no GPU, so this is no part of `make test`; it takes seconds. In fp32 beams and their order
are the same, scores within 1e-3 as for all engines. bf16 rounds to 8 bits, and beams of like scores
change places.
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch

from bench.agreement import compared
from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.engine import Query, create_engine
from service.prompt import PromptBuilder
from service.settings import Settings
from tests.engine.reference import assert_same, beams_of

_QUERIES = 120
_LONGEST = 30
_WIDTHS = (5, 20, 50)
_NEAR = 1e-3
_SHARED_IN_BF16 = 0.95


def main() -> None:
    """Prints the shares of each comparison. Raises `AssertionError` where one does not hold."""
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU")
    bundle = Bundle.load(Settings.model_fields["bundle"].default)
    queries = _queries(bundle)
    with create_engine("torch", bundle, device="cpu") as engine:
        right = engine.search_batch(queries)
    for dtype in ("float32", "bfloat16"):
        with create_engine("torch", bundle, device="cuda", dtype=dtype) as engine:
            found = {
                "together": engine.search_batch(queries),
                "prompts remembered": engine.search_batch(queries),
                "one by one": [engine.search_batch([query])[0] for query in queries],
            }
        for how, answers in found.items():
            shares = compared(answers, right)
            print(f"{torch.cuda.get_device_name()}, {dtype}, {how}: {shares}")
            assert list(map(len, answers)) == list(map(len, right))
            assert shares["same beams"] >= _SHARED_IN_BF16
            if dtype == "float32":
                for one, other in zip(answers, right, strict=True):
                    assert_same(beams_of(one), beams_of(other), _NEAR)


def _queries(bundle: Bundle) -> Sequence[Query]:
    """Prompts of all lengths and beams of several widths; of a third of them most items are out."""
    builder, chance, items = PromptBuilder(bundle), np.random.default_rng(3), len(bundle.catalogue)
    queries = []
    for number in range(_QUERIES):
        rows = chance.integers(items, size=chance.integers(1, _LONGEST + 1)).tolist()
        out = np.flatnonzero(chance.random(items) < 0.7)
        eligible = Eligibility.of().without(out) if number % 3 == 0 else None
        queries.append(Query(builder.build(rows)[0], _WIDTHS[number // 3 % 3], eligible))
    return queries


if __name__ == "__main__":
    main()
