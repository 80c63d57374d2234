"""Matrix products of any number of rows, and what is kept of them."""

import psutil
import pytest
import torch
from torch.nn.functional import linear

from service.engine.torch.linear import Int8, Linear, Packed, rounded

ROWS = [1, 2, 15, 16, 17, 33, 100, 129, 500]


def test_few_numbers_of_rows_are_left() -> None:
    assert [rounded(n) for n in (0, 1, 15, 16, 17, 18, 31, 33, 65, 1025)] == [
        *(0, 1, 15, 16, 18, 18, 32, 36, 72, 1152),
    ]
    for n in range(1, 5000):
        assert n <= rounded(n) <= n * 9 / 8
    assert len({rounded(n) for n in range(1, 4097)}) < 90


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_torch(rows: int, bias: bool) -> None:
    made = torch.Generator().manual_seed(rows)
    weight, x = torch.randn(48, 32, generator=made), torch.randn(rows, 32, generator=made)
    added = torch.randn(48, generator=made) if bias else None
    residual = torch.randn(rows, 48, generator=made)
    wanted = linear(x, weight, added)
    for product, error in ((Packed(weight, added), 1e-5), (Int8(weight, added), 0.5)):
        before = x.clone(), residual.clone()
        assert (product(x) - wanted).abs().max() < error
        assert (product.added_to(residual, x) - wanted - residual).abs().max() < error
        assert product(x).shape == wanted.shape
        assert torch.equal(x, before[0])
        assert torch.equal(residual, before[1])


@pytest.mark.parametrize("kind", [Packed, Int8])
def test_memory_does_not_grow_with_every_number_of_rows(kind: type[Packed] | type[Int8]) -> None:
    product: Linear = kind(torch.randn(512, 256), None)

    def used(counts: range) -> float:
        before = psutil.Process().memory_info().rss
        for rows in counts:
            product(torch.randn(rows, 256))
        return float(psutil.Process().memory_info().rss - before) / 2**20

    used(range(1, 1024, 8))
    # By itself each of these would take some ten or hundred kilobytes.
    assert used(range(1, 1024)) < 20
