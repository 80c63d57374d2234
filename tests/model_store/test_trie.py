"""The trie and eligibility against a plain list of SIDs."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.errors import SidError
from model_store.sid import END, Eligibility, EligibilityBatch, Trie, sort_order
from tests.model_store.tries import Sid, build, matrix, padded, sid_rows

EXAMPLES = settings(deadline=None)
INT32_MAX = 2**31 - 1


def prefixes(rows: Sequence[Sid], depth: int) -> list[Sid]:
    """The nodes at a depth, in their order."""
    return sorted({row[:depth] for row in rows})


def rows_under(rows: Sequence[Sid], prefix: Sid) -> list[int]:
    return [i for i, row in enumerate(rows) if row[: len(prefix)] == prefix]


def every_node(trie: Trie, depth: int) -> torch.Tensor:
    return torch.arange(trie.n_nodes(depth))


class TestTrie:
    @given(sid_rows())
    @EXAMPLES
    def test_nodes_and_item_ranges(self, rows: list[Sid]) -> None:
        trie = build(rows)
        assert (trie.n_items, trie.depth) == (len(rows), len(rows[0]))
        for depth in range(trie.depth + 1):
            nodes = prefixes(rows, depth)
            assert trie.n_nodes(depth) == len(nodes)
            first, behind = trie.rows(depth, every_node(trie, depth))
            ranges = [
                list(range(lo, hi)) for lo, hi in zip(first.tolist(), behind.tolist(), strict=True)
            ]
            assert ranges == [rows_under(rows, node) for node in nodes]

    @given(sid_rows())
    @EXAMPLES
    def test_counts_of_nodes_that_grow(self, rows: list[Sid]) -> None:
        trie = build(rows)
        for depth in range(trie.depth):
            counts = trie.growing(depth, every_node(trie, depth))
            for d, count in enumerate(counts, start=depth):
                grow = {row[:d] for row in rows if row[d] != END}
                assert count.tolist() == [
                    sum(node[:depth] == above for node in grow) for above in prefixes(rows, depth)
                ]
            assert len(counts) == trie.depth - depth

    @given(sid_rows(), st.data())
    @EXAMPLES
    def test_children_of_many_nodes_at_once(self, rows: list[Sid], data: st.DataObject) -> None:
        trie = build(rows)
        depth = data.draw(st.integers(0, trie.depth - 1))
        nodes, below = prefixes(rows, depth), prefixes(rows, depth + 1)
        asked = data.draw(st.lists(st.integers(0, len(nodes) - 1), max_size=12))
        children = trie.children(depth, torch.tensor(asked, dtype=torch.long))
        found = list(
            zip(
                children.parent.tolist(),
                children.node.tolist(),
                children.code.tolist(),
                strict=True,
            )
        )
        assert found == [
            (place, below.index(child), child[-1])
            for place, node in enumerate(asked)
            for child in below
            if child[:-1] == nodes[node]
        ]

    @given(sid_rows())
    @EXAMPLES
    def test_only_ends(self, rows: list[Sid]) -> None:
        trie = build(rows)
        for depth in range(trie.depth):
            expected = [
                all(set(row[depth:]) == {END} for row in rows if row[:depth] == node)
                for node in prefixes(rows, depth)
            ]
            nodes = every_node(trie, depth)
            assert trie.only_ends(depth, nodes).tolist() == expected
            square = nodes[:, None].expand(-1, 2)
            assert trie.only_ends(depth, square).tolist() == [[end, end] for end in expected]

    @given(sid_rows(), st.data())
    @EXAMPLES
    def test_find(self, rows: list[Sid], data: st.DataObject) -> None:
        trie = build(rows)
        leaves = prefixes(rows, trie.depth)
        sid = st.lists(st.integers(0, 4), max_size=trie.depth)
        strange = data.draw(st.lists(sid, max_size=10))
        asked = [*rows, *(padded(codes, trie.depth) for codes in strange)]
        expected = [leaves.index(row) if row in leaves else -1 for row in asked]
        assert trie.find(matrix(asked, trie.depth)).tolist() == expected

    @given(sid_rows(), st.data())
    @EXAMPLES
    def test_codes_behind(self, rows: list[Sid], data: st.DataObject) -> None:
        trie = build(rows)
        row = data.draw(st.sampled_from(rows) | st.tuples(*[st.integers(0, 3)] * trie.depth))
        prefix = row[: data.draw(st.integers(0, trie.depth))]
        behind = sorted({(*row, END)[len(prefix)] for row in rows if row[: len(prefix)] == prefix})
        assert trie.codes_behind(prefix) == behind

    @given(sid_rows())
    @EXAMPLES
    def test_trusted_codes_give_the_same(self, rows: list[Sid]) -> None:
        codes = np.array(rows, np.int32)
        one, other = Trie.build(codes), Trie.build(codes, trusted=True)
        for name in ("code", "first_row", "first_child"):
            for ours, theirs in zip(getattr(one, name), getattr(other, name), strict=True):
                assert ours.tolist() == theirs.tolist()

    def test_find_nothing(self) -> None:
        assert build([(1, 2)]).find(np.empty((0, 2), np.int32)).tolist() == []

    def test_one_item(self) -> None:
        trie = build([(3, 1)])
        assert [trie.n_nodes(depth) for depth in range(3)] == [1, 1, 1]
        assert trie.find(np.array([[3, 1], [3, 0]], np.int32)).tolist() == [0, -1]

    def test_depth_one_with_collisions(self) -> None:
        trie = build([(5,), (5,), (9,)])
        first, behind = trie.rows(1, torch.tensor([0, 1]))
        assert (first.tolist(), behind.tolist()) == ([0, 2], [2, 3])

    def test_a_sid_that_is_a_prefix_of_another(self) -> None:
        trie = build([(1, 2, END), (1, 2, 0)])
        assert trie.children(2, torch.tensor([0])).code.tolist() == [END, 0]
        assert trie.only_ends(2, torch.tensor([0])).tolist() == [False]
        assert trie.find(np.array([[1, 2, END], [1, 2, 0]], np.int32)).tolist() == [0, 1]

    @given(st.lists(st.tuples(*[st.integers(0, INT32_MAX)] * 3), min_size=1, max_size=20))
    @EXAMPLES
    def test_large_codes(self, drawn: list[Sid]) -> None:
        rows = sorted([*drawn, (INT32_MAX, INT32_MAX, INT32_MAX), (32768, 0, END)])
        trie = build(rows)
        leaves = prefixes(rows, 3)
        assert trie.codes.tolist() == [list(row) for row in rows]
        assert trie.find(np.array(rows, np.int32)).tolist() == [leaves.index(r) for r in rows]

    @pytest.mark.parametrize("largest", [32766, 32767, 32768])
    def test_narrow_codes_keep_their_values(self, largest: int) -> None:
        trie = build([(0, largest), (largest, END)])
        assert trie.codes.tolist() == [[0, largest], [largest, END]]
        assert trie.children(0, torch.tensor([0])).code.tolist() == [0, largest]

    def test_to_a_device_keeps_everything(self) -> None:
        rows = [(0, 1, END), (0, 1, 1), (2, 0, 3)]
        trie = build(rows)
        moved = trie.to("cpu")
        assert moved.codes.tolist() == [list(row) for row in rows]
        assert (moved.n_items, moved.depth, moved.nbytes) == (3, 3, trie.nbytes)
        assert 0 < trie.nbytes < 1000

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([[1, 0], [0, 5]], "not in the order of their SIDs"),
            ([[0, 5], [0, 4]], "not in the order of their SIDs"),
            ([[0, 0], [0, END]], "not in the order of their SIDs"),
            (
                [[INT32_MAX, INT32_MAX, 1], [INT32_MAX, INT32_MAX, 0]],
                "not in the order of their SIDs",
            ),
            ([[END, 0]], "a code follows the end of a SID"),
            ([[0, END, 2]], "a code follows the end of a SID"),
            ([[-2, 0]], "codes below -1"),
        ],
    )
    def test_refusals(self, rows: list[list[int]], message: str) -> None:
        with pytest.raises(SidError, match=message):
            Trie.build(np.array(rows, np.int32))

    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (4,)])
    def test_nothing_is_no_trie(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(SidError, match="at least one item and one level"):
            Trie.build(np.zeros(shape, np.int32))


class TestSortOrder:
    @given(
        st.integers(1, 5).flatmap(
            lambda depth: st.lists(
                st.lists(
                    st.one_of(st.integers(END, 3), st.integers(END, INT32_MAX)),
                    min_size=depth,
                    max_size=depth,
                ),
                min_size=1,
                max_size=30,
            )
        )
    )
    @EXAMPLES
    def test_is_the_stable_order_of_tuples(self, rows: list[list[int]]) -> None:
        order = sort_order(np.array(rows, np.int32)).tolist()
        assert order == sorted(range(len(rows)), key=lambda i: (rows[i], i))

    @pytest.mark.parametrize("largest", [3, 2**20, 2**21 - 2, 2**21 - 1, 2**21, INT32_MAX])
    def test_at_the_edge_of_63_bits(self, largest: int) -> None:
        rows = [[largest, 0, 1], [largest, END, END], [0, largest, largest], [0, largest, 0]]
        assert sort_order(np.array(rows, np.int32)).tolist() == [3, 2, 1, 0]

    def test_nothing(self) -> None:
        assert sort_order(np.empty((0, 3), np.int32)).tolist() == []


Restriction = tuple[list[bool] | None, list[int]]


def restrictions(n_items: int) -> st.SearchStrategy[Restriction | None]:
    mask = st.lists(st.booleans(), min_size=n_items, max_size=n_items)
    excluded = st.lists(st.integers(0, n_items - 1), max_size=8)
    return st.none() | st.tuples(st.none() | mask, excluded)


def allowed(restriction: Restriction | None, n_items: int) -> npt.NDArray[np.bool_]:
    """Whether each item may be shown, said plainly."""
    mask, excluded = restriction or (None, [])
    may = np.ones(n_items, bool) if mask is None else np.array(mask, bool)
    may[excluded] = False
    return may


def eligibility(restriction: Restriction | None) -> Eligibility | None:
    if restriction is None:
        return None
    mask, excluded = restriction
    return Eligibility.of(None if mask is None else np.array(mask, bool), excluded)


class TestEligibility:
    @given(sid_rows(), st.data())
    @EXAMPLES
    def test_counts_under_every_node(self, rows: list[Sid], data: st.DataObject) -> None:
        trie, n = build(rows), len(rows)
        queries = data.draw(st.lists(restrictions(n), min_size=1, max_size=5))
        batch = EligibilityBatch([eligibility(q) for q in queries], n).to("cpu")
        for depth in range(trie.depth + 1):
            nodes = every_node(trie, depth)
            first, behind = trie.rows(depth, nodes)
            for number, restriction in enumerate(queries):
                may = allowed(restriction, n)
                expected = [int(may[rows_under(rows, p)].sum()) for p in prefixes(rows, depth)]
                query = torch.full_like(nodes, number)
                assert batch.count(query, first, behind).tolist() == expected
                if (single := eligibility(restriction)) is not None:
                    assert single.count(first, behind).tolist() == expected

    @given(sid_rows(), st.data())
    @EXAMPLES
    def test_nodes_with_something_left(self, rows: list[Sid], data: st.DataObject) -> None:
        """Any nodes of any queries, as long as they ascend."""
        n = len(rows)
        queries = data.draw(st.lists(restrictions(n), min_size=1, max_size=4))
        batch = EligibilityBatch([eligibility(q) for q in queries], n)
        trie = build(rows)
        for depth in range(trie.depth + 1):
            every = st.sampled_from(every_node(trie, depth).tolist())
            pairs = st.tuples(st.integers(0, len(queries) - 1), every)
            asked = sorted(data.draw(st.sets(pairs)))
            query, node = torch.tensor(asked, dtype=torch.long).reshape(-1, 2).T
            counted = batch.count(query, *trie.rows(depth, node))
            assert batch.open(trie, depth, query, node).tolist() == (counted > 0).tolist()

    def test_a_mask_is_looked_at_anew_over_another_trie(self) -> None:
        chosen = Eligibility.of(np.array([False, True, False]))
        nodes = torch.tensor([0, 1])
        for rows, left in (([0, 0, 1], [True, False]), ([0, 1, 1], [False, True])):
            batch = EligibilityBatch([chosen], 3)
            assert batch.open(build([(c,) for c in rows]), 1, nodes * 0, nodes).tolist() == left

    def test_a_wide_level_is_looked_at_where_the_search_is(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trie = build([(0, 0), (0, 1), (1, 0), (2, 2)])
        mask = np.array([True, False, True, False])
        node, query = torch.tensor([0, 1, 2]), torch.zeros(3, dtype=torch.long)
        for many in (3, 2):
            monkeypatch.setattr("model_store.sid.eligibility._MANY", many)
            batch = EligibilityBatch([Eligibility.of(mask)], 4)
            assert batch.open(trie, 1, query, node).tolist() == [True, True, False]

    @given(st.integers(1, 20), st.data())
    @EXAMPLES
    def test_exclusions_add_up(self, n: int, data: st.DataObject) -> None:
        restriction = data.draw(restrictions(n))
        rows = data.draw(st.lists(st.integers(0, n - 1), max_size=12))
        chosen = (eligibility(restriction) or Eligibility.of()).without(rows)
        may = allowed(restriction, n)
        may[rows] = False
        assert chosen.rows(0, n) == np.flatnonzero(may).tolist()
        assert chosen.total(n) == may.sum()

    @given(st.integers(1, 40), st.data())
    @EXAMPLES
    def test_the_first_of_some_order(self, n: int, data: st.DataObject) -> None:
        restriction = data.draw(restrictions(n).filter(lambda r: r is not None))
        order = data.draw(st.permutations(range(n)))
        most = data.draw(st.integers(1, n))
        chosen = eligibility(restriction)
        assert chosen is not None
        may = allowed(restriction, n)
        expected = [row for row in order if may[row]][:most]
        assert chosen.among(np.array(order), most) == expected

    def test_a_mask_over_other_items(self) -> None:
        with pytest.raises(ValueError, match="not over 4 items"):
            EligibilityBatch([Eligibility.of(np.ones(3, bool))], 4)

    @given(st.integers(1, 30), st.data())
    @EXAMPLES
    def test_mixed_queries_in_one_call(self, n: int, data: st.DataObject) -> None:
        queries = data.draw(st.lists(restrictions(n), min_size=1, max_size=6))
        row = st.integers(0, n)
        asked = data.draw(
            st.lists(st.tuples(st.integers(0, len(queries) - 1), row, row), min_size=1)
        )
        ranges = [(q, min(a, b), max(a, b)) for q, a, b in asked]
        batch = EligibilityBatch([eligibility(q) for q in queries], n)
        query, first, behind = torch.tensor(ranges).T
        expected = [int(allowed(queries[q], n)[lo:hi].sum()) for q, lo, hi in ranges]
        assert batch.count(query, first, behind).tolist() == expected

    @given(st.integers(1, 20), st.data())
    @EXAMPLES
    def test_rows(self, n: int, data: st.DataObject) -> None:
        restriction = data.draw(restrictions(n).filter(lambda r: r is not None))
        first = data.draw(st.integers(0, n))
        behind = data.draw(st.integers(first, n))
        chosen = eligibility(restriction)
        assert chosen is not None
        may = allowed(restriction, n)
        assert chosen.rows(first, behind) == [r for r in range(first, behind) if may[r]]

    def test_unrestricted(self) -> None:
        open_ones = [None, Eligibility.of()]
        assert EligibilityBatch(open_ones, 3).unrestricted
        assert not EligibilityBatch([*open_ones, Eligibility.of(excluded=[1])], 3).unrestricted
        assert not EligibilityBatch([Eligibility.of(np.ones(3, bool))], 3).unrestricted

    def test_excluded_items_may_be_repeated_unsorted_or_masked_already(self) -> None:
        mask = np.array([True, False, True, True])
        chosen = Eligibility.of(mask, [3, 1, 3, 0])
        assert chosen.excluded.tolist() == [0, 3]
        assert chosen.rows(0, 4) == [2]

    def test_a_large_catalogue(self) -> None:
        rng = np.random.default_rng(0)
        n = 50_000
        mask, excluded = rng.random(n) < 0.3, rng.integers(0, n, 500)
        may = allowed((mask.tolist(), excluded.tolist()), n)
        cuts = np.sort(rng.integers(0, n, 200))
        expected = [int(may[lo:hi].sum()) for lo, hi in pairwise(cuts)]
        first, behind = torch.from_numpy(cuts[:-1]), torch.from_numpy(cuts[1:])
        chosen = Eligibility.of(mask, excluded)
        assert chosen.count(first, behind).tolist() == expected
        query = torch.ones_like(first)
        batch = EligibilityBatch([None, chosen], n)
        assert batch.count(query, first, behind).tolist() == expected


def test_the_oracle_counts_collisions() -> None:
    """The strategy really draws what the tests above are about."""
    seen: Counter[str] = Counter()

    @given(sid_rows())
    @EXAMPLES
    def draw(rows: list[Sid]) -> None:
        seen["collision"] += len(set(rows)) < len(rows)
        seen["mixed"] += len({row.count(END) for row in rows}) > 1
        seen["prefix"] += any(
            END in a and a != b and b[: a.index(END)] == a[: a.index(END)]
            for a in rows
            for b in rows
        )

    draw()
    assert min(seen[kind] for kind in ("collision", "mixed", "prefix")) > 0
