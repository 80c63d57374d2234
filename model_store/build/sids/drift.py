"""Whether later items still look like those that a quantizer has learnt from.

A frozen quantizer gives everything a SID, also what it cannot tell apart. Its reconstruction error
says how well it knows an item. It is compared with the errors of catalogue items that were held out
when the quantizer was made: against those that it was made from, every new item would look strange.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table
from scipy.stats import ks_2samp

from model_store.build.embed.base import Vectors

_QUANTILE = 0.95
_LARGEST_SHARE = 0.10
_SIGNIFICANCE = 0.01


@dataclass(frozen=True, slots=True)
class Drift:
    """Reconstruction errors of new items beside the reference.

    above:   share of the new items above the reference's 95th percentile; 5 % are expected
    ks:      the largest gap between the two distribution functions, new errors being larger
    p_value: of the one-sided two-sample Kolmogorov-Smirnov test of that gap
    """

    new_items: int
    reference_items: int
    new_median: float
    reference_median: float
    limit: float
    above: float
    ks: float
    p_value: float

    @classmethod
    def measure(cls, new: Vectors, reference: Vectors) -> "Drift":
        """Both are errors, shape (items,), of at least one item each."""
        limit = float(np.quantile(reference, _QUANTILE))
        # `less`: the distribution function of the first lies below, so its values are larger.
        test = ks_2samp(new, reference, alternative="less", method="asymp")
        return cls(
            new_items=len(new),
            reference_items=len(reference),
            new_median=float(np.median(new)),
            reference_median=float(np.median(reference)),
            limit=limit,
            above=float((new > limit).mean()),
            ks=float(test.statistic),
            p_value=float(test.pvalue),
        )

    @property
    def retrain(self) -> bool:
        """Twice as many items as expected are badly known, and that is no accident.

        The share is the size of the drift; with many items the test alone would call a hair's
        breadth significant, with a few the share alone would call chance a drift.
        """
        return self.above > _LARGEST_SHARE and self.p_value < _SIGNIFICANCE

    @property
    def advice(self) -> str:
        """One sentence."""
        if self.retrain:
            return "retrain: the quantizer does not know items such as these"
        return "no need to retrain: the new items look like the catalogue"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"retrain": self.retrain}

    def table(self) -> Table:
        table = Table("", "new", "catalogue", title="reconstruction error")
        table.add_row("items", f"{self.new_items:,}", f"{self.reference_items:,}")
        table.add_row("median", f"{self.new_median:.4f}", f"{self.reference_median:.4f}")
        table.add_row(f"above {self.limit:.4f}", f"{self.above:.1%}", f"{1 - _QUANTILE:.0%}")
        table.add_row("Kolmogorov-Smirnov", f"{self.ks:.3f}", f"p = {self.p_value:.2g}")
        return table
