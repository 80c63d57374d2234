"""The torch engine on a GPU against itself on the CPU: `python -m tests.engine.gpu`.

CI has no GPU, so this is no part of `make test`; it takes seconds. In fp32 beams and their order
are the same, scores within 1e-3 as for all engines. bf16 rounds to 8 bits, and beams of like scores
change places.
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch

from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.engine import Beam, Query, create_engine
from service.prompt import PromptBuilder
from service.settings import Settings

_QUERIES = 120
_LONGEST = 30
_WIDTHS = (5, 20, 50)
_NEAR = 1e-3
_SHARED_IN_BF16 = 0.95


def main() -> None:
    """Prints a line for each comparison; ends with 1 where one does not hold."""
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU")
    bundle = Bundle.load(Settings.model_fields["bundle"].default)
    queries = list(_queries(bundle))
    with create_engine("torch", bundle, device="cpu") as engine:
        right = engine.search_batch(queries)
    good = True
    for dtype, least in (("float32", 1.0), ("bfloat16", _SHARED_IN_BF16)):
        with create_engine("torch", bundle, device="cuda", dtype=dtype) as engine:
            found = {
                "together": engine.search_batch(queries),
                "prompts remembered": engine.search_batch(queries),
                "one by one": [engine.search_batch([query])[0] for query in queries],
            }
        for how, answers in found.items():
            shared, order, worst = _compared(answers, right)
            good &= shared >= least and (least < 1 or (order == 1 and worst < _NEAR))
            print(
                f"{torch.cuda.get_device_name()}, {dtype}, {how}: {shared:.1%} of the beams, of"
                f" {order:.0%} of the queries in the same order; scores differ by {worst:.1e}"
            )
    sys.exit(not good)


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


def _compared(
    answers: Sequence[Sequence[Beam]], right: Sequence[Sequence[Beam]]
) -> tuple[float, float, float]:
    """Shares of the beams in common and of queries with all in the same order, and by how much the
    scores of the same SID differ at most."""
    shared, order, worst = [], [], 0.0
    for found, expected in zip(answers, right, strict=True):
        scores = {beam.codes: beam.score for beam in expected}
        common = [beam for beam in found if beam.codes in scores]
        shared.append(len(common) / max(1, len(expected), len(found)))
        order.append([beam.codes for beam in found] == list(scores))
        worst = max([worst, *(abs(scores[beam.codes] - beam.score) for beam in common)])
    return float(np.mean(shared)), float(np.mean(order)), worst


if __name__ == "__main__":
    main()
