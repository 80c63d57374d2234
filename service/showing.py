"""What is shown of the items of an answer."""

from collections.abc import Sequence
from dataclasses import replace

from model_store.sid import Eligibility
from model_store.sid.spec import SidSpec
from service.answer import Pick
from service.catalogue.snapshot import Snapshot
from service.engine import Beam
from service.explain import explain
from service.sources import Picks


def as_shown(
    picks: Picks,
    beams: Sequence[Beam],
    now: Snapshot,
    spec: SidSpec,
    eligible: Eligibility | None,
    explained: bool,
) -> list[Pick]:
    """The items of an answer; where it shall be `explained`, with what each level added."""
    catalogue = now.catalogue
    plain = [
        Pick(catalogue.item_ids[row], catalogue.titles[row], catalogue.sids[row], score, source)
        for row, score, source in picks
    ]
    if not explained:
        return plain
    by_beam = explain(beams, now.trie, eligible, spec)
    of = {catalogue.sids[b.rows[0]]: gains for b, gains in zip(beams, by_beam, strict=True)}
    return [p if p.score is None else replace(p, levels=of.get(p.sid)) for p in plain]
