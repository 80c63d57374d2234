"""Neighbours are what somebody with a dictionary would count."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_store.errors import BundleError
from model_store.neighbours import NEIGHBOURS, Counting, Neighbours, Voting

N = 40
Table = list[dict[int, float]]


def histories(seed: int, users: int = 60) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(N - 5, size=rng.integers(0, 9)).tolist() for _ in range(users)]


def by_hand(listed: list[list[int]], counting: Counting) -> Table:
    table: list[dict[int, float]] = [defaultdict(float) for _ in range(N)]
    for history in listed:
        for i, one in enumerate(history):
            for step in range(1, counting.reach + 1):
                if i + step < len(history):
                    weight = 1 / step if counting.by_distance else 1.0
                    table[one][history[i + step]] += weight
                    if counting.backward:
                        table[history[i + step]][one] += counting.backward * weight
    return table


def as_dicts(neighbours: Neighbours) -> Table:
    return [
        dict(zip(neighbours.rows[a:b].tolist(), neighbours.weights[a:b].tolist(), strict=True))
        for a, b in zip(neighbours.first[:-1], neighbours.first[1:], strict=True)
    ]


COUNTINGS = [
    Counting(),
    Counting(reach=1, backward=0),
    Counting(reach=3, backward=0.25, by_distance=True),
    Counting(reach=20),
]


@pytest.mark.parametrize("counting", COUNTINGS)
def test_counts_are_those_of_a_dictionary(counting: Counting) -> None:
    listed = histories(1)
    found = as_dicts(Neighbours.count(listed, N, counting))
    for mine, expected in zip(found, by_hand(listed, counting), strict=True):
        assert mine.keys() == expected.keys()
        for row, weight in expected.items():
            assert mine[row] == pytest.approx(weight, abs=2e-4)  # popularity settles ties


def test_the_strongest_come_first_and_ties_go_by_popularity() -> None:
    listed = [[0, 1], [0, 2], [0, 2], [0, 3], [4, 3], [4, 3]]
    table = Neighbours.count(listed, 6, Counting(backward=0))
    assert table.rows[table.first[0] : table.first[1]].tolist() == [2, 3, 1]
    assert (np.diff(table.first)[[1, 2, 3, 5]] == 0).all()


@pytest.mark.parametrize("listed", [[], [[]], [[3]], [[1], [2]]])
def test_nothing_stands_beside_anything(listed: list[list[int]]) -> None:
    table = Neighbours.count(listed, N, Counting())
    assert (len(table), len(table.rows)) == (N, 0)
    assert table.problems(N) == []
    rows, votes = table.votes([1, 2], Voting())
    assert (len(rows), len(votes)) == (0, 0)


def test_only_the_strongest_are_kept() -> None:
    whole = Neighbours.count(histories(2), N, Counting())
    few = whole.strongest(3)
    assert few.problems(N) == []
    for mine, all_of_them in zip(as_dicts(few), as_dicts(whole), strict=True):
        assert list(mine.items()) == list(all_of_them.items())[:3]


def test_rows_move_with_their_items() -> None:
    to = np.random.default_rng(3).permutation(N).tolist()
    whole = Neighbours.count(histories(3), N, Counting(by_distance=True))
    moved, before = as_dicts(whole.moved(to)), as_dicts(whole)
    for row in range(N):
        assert moved[to[row]] == {to[other]: w for other, w in before[row].items()}


@pytest.mark.parametrize("voting", [Voting(), Voting(last=2, decay=0.5), Voting(last=99, decay=1)])
def test_votes_are_those_of_a_dictionary(voting: Voting) -> None:
    table = Neighbours.count(histories(4), N, COUNTINGS[2]).strongest(6)
    weights = as_dicts(table)
    for history in histories(5):
        expected: dict[int, float] = defaultdict(float)
        for age, row in enumerate(reversed(history)):
            for other, weight in weights[row].items():
                expected[other] += voting.decay**age * weight if age < voting.last else 0
        rows, votes = table.votes(history, voting)
        assert dict(zip(rows.tolist(), votes.tolist(), strict=True)) == pytest.approx(
            {row: vote for row, vote in expected.items() if vote > 0}
        )
        assert (np.diff(votes) <= 0).all()


def test_written_and_read(tmp_path: Path) -> None:
    table = Neighbours.count(histories(6), N, Counting())
    table.write(tmp_path / NEIGHBOURS)
    again = Neighbours.read(tmp_path / NEIGHBOURS)
    assert as_dicts(again) == as_dicts(table)


def lists(rows: list[list[int]], weights: list[list[float]], kind: pa.DataType) -> pa.Table:
    return pa.table(
        {"rows": pa.array(rows, pa.list_(pa.int32())), "weights": pa.array(weights, pa.list_(kind))}
    )


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"rows": [1]}),
        pa.table({"rows": [1], "weights": [1.0]}),
        lists([[1], [2]], [[0.5], [0.5]], pa.float64()),
        lists([[1], [2]], [[0.5], [0.5, 1]], pa.float32()),
    ],
)
def test_another_table_is_refused(tmp_path: Path, table: pa.Table) -> None:
    pq.write_table(table, tmp_path / NEIGHBOURS)
    with pytest.raises(BundleError, match=r"neighbours\.parquet: no table of neighbours"):
        Neighbours.read(tmp_path / NEIGHBOURS)


@pytest.mark.parametrize(
    ("rows", "weights", "problem"),
    [
        ([[1], [], []], [[1], [], []], "3 items, the catalogue has 2"),
        ([[1], [2]], [[1], [1]], "a neighbour is not one of the 2 items"),
        ([[1], [-1]], [[1], [1]], "a neighbour is not one of the 2 items"),
        ([[1], [0]], [[1], [0]], "a weight is not a number above 0"),
        ([[1], [0]], [[1], [float("nan")]], "a weight is not a number above 0"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, rows: list[list[int]], weights: list[list[float]], problem: str
) -> None:
    pq.write_table(lists(rows, weights, pa.float32()), tmp_path / NEIGHBOURS)
    [said] = Neighbours.read(tmp_path / NEIGHBOURS).problems(2)
    assert problem in said
