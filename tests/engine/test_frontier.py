"""What a pass is asked about, against listing every prefix; and answers with and without it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.sid import END, Eligibility, EligibilityBatch, Trie
from service.engine import Query
from service.engine.beams import Beams
from service.engine.frontier import frontier
from service.engine.torch.engine import TorchEngine
from tests.engine.reference import assert_same, beams_of
from tests.model_store.tries import Sid, build, sid_rows
from tests.tiny import make_bundle, random_items

EXAMPLES = settings(deadline=None, max_examples=60)
VAST = 10**6


def beams_at(trie: Trie, depth: int, nodes: list[list[int]]) -> Beams:
    """Some nodes of a depth for each query, as if a search had come there."""
    query = [i for i, of_query in enumerate(nodes) for _ in of_query]
    node = torch.tensor([n for of_query in nodes for n in of_query], dtype=torch.long)
    code = trie.code[depth - 1][node].long()
    return Beams(len(nodes), torch.tensor(query), node, torch.zeros(len(node)), node, code)


def prefixes(trie: Trie, depth: int, nodes: torch.Tensor) -> list[Sid]:
    first, _ = trie.rows(depth, nodes)
    return [tuple(row[:depth]) for row in trie.codes[first.long()].tolist()]


@given(sid_rows(max_items=40), st.data())
@EXAMPLES
def test_asks_about_all_that_may_be_found_and_may_grow(
    rows: list[Sid], data: st.DataObject
) -> None:
    trie = build(rows)
    if trie.depth < 2:
        return
    depth = data.draw(st.integers(1, trie.depth - 1))
    some = st.sets(st.integers(0, trie.n_nodes(depth) - 1)).map(sorted)
    nodes = data.draw(st.lists(some, min_size=1, max_size=3))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    beams = beams_at(trie, depth, nodes)
    # As in a search, every beam leads to something eligible.
    mask[trie.rows(depth, beams.node)[0].numpy()] = True
    eligible = EligibilityBatch([Eligibility.of(mask)] * len(nodes), trie.n_items)
    levels = frontier(trie, depth, beams, eligible, VAST)
    assert [level.depth for level in levels] == list(range(depth, depth + len(levels)))
    if len(levels[0]) > 0:
        assert len(levels) == trie.depth - depth
    for level in levels:
        named = prefixes(trie, level.depth, level.node)
        found = list(zip(level.query.tolist(), named, strict=True))
        expected = sorted(
            {
                (query, tuple(row[: level.depth]))
                for query, of_query in enumerate(nodes)
                for prefix in prefixes(trie, depth, torch.tensor(of_query, dtype=torch.long))
                for row, may in zip(rows, mask, strict=True)
                # What has an eligible item below it, and a code to follow it.
                if may and tuple(row[:depth]) == prefix
                if any(
                    other[: level.depth] == row[: level.depth] and other[level.depth] != END
                    for other in rows
                )
            }
        )
        assert found == expected
        if level is not levels[0]:
            above = levels[level.depth - depth - 1]
            shorter = prefixes(trie, above.depth, above.node[level.parent])
            assert shorter == [prefix[:-1] for _, prefix in found]
            assert above.query[level.parent].tolist() == level.query.tolist()


class TestWhetherItPays:
    #          chains below (0,) and (1,), a bush below (2,)
    BUSH = (*((2, 0, i) for i in range(3)), *((2, 1 + i, 0) for i in range(9)))
    ROWS = ((0, 0, 0), (1, 0, 0), *BUSH)

    @pytest.mark.parametrize(
        ("nodes", "spare", "levels"),
        [
            ([0, 1], 0, 2),  # as many prefixes as beams: nothing is asked in vain
            ([0, 1, 2], 0, 1),
            ([0, 1, 2], 8, 1),
            ([0, 1, 2], 9, 2),  # 12 prefixes below 3 beams
        ],
    )
    def test_by_the_rows_asked_in_vain(self, nodes: list[int], spare: int, levels: int) -> None:
        trie = build(self.ROWS)
        everything = EligibilityBatch([None], trie.n_items)
        assert len(frontier(trie, 1, beams_at(trie, 1, [nodes]), everything, spare)) == levels


def test_rows_of_beams_among_others() -> None:
    trie = build([(0, 0), (0, 1), (1, 0), (2, 0), (3, 3)])
    everything = EligibilityBatch([None, None], trie.n_items)
    [level] = frontier(trie, 1, beams_at(trie, 1, [[0, 2, 3], [1, 2]]), everything, 0)
    assert level.row(beams_at(trie, 1, [[2], [1, 2]])).tolist() == [1, 3, 4]


def test_an_engine_finds_the_same_however_far_it_looks(tmp_path: Path) -> None:
    items = random_items(60, (5, 5, 5), seed=9, extra_share=0.4)
    bundle = make_bundle(tmp_path, items)
    rng = np.random.default_rng(1)
    mask = Eligibility.of(rng.random(len(bundle.catalogue)) < 0.3)
    queries = [
        Query(rng.integers(1, 90, length).tolist(), width, eligible)
        for length, width, eligible in ((3, 4, None), (20, 9, mask), (11, 30, None), (8, 2, mask))
    ]
    together = [Query(query.prompt_token_ids, 5, query.eligible) for query in queries]
    found = []
    for spare in (0, 3, VAST):
        with TorchEngine(bundle, device="cpu") as engine:
            engine._spare = spare
            alone = [beams for query in queries for beams in engine.search_batch([query])]
            found.append(alone + engine.search_batch(together))
    for other in found[1:]:
        for beams, right in zip(other, found[0], strict=True):
            assert_same(beams_of(beams), beams_of(right))
