from collections.abc import Callable

import pytest

from bench.timing import Spread, alternate, digits


def test_contestants_take_turns_and_warming_up_does_not_count() -> None:
    calls: list[tuple[str, int]] = []

    def contestant(name: str) -> Callable[[int], tuple[float, int]]:
        def run(number: int) -> tuple[float, int]:
            calls.append((name, number))
            return number / 10, number

        return run

    taken = alternate({name: contestant(name) for name in "ab"}, 2, warm_up=1)
    assert calls == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert taken == {name: [(0.1, 1), (0.2, 2)] for name in "ab"}


def test_spread() -> None:
    assert Spread.of([5, 1, 2, 4, 3]) == Spread(2, 3, 4, 5)
    assert Spread.of([7]) == Spread(7, 7, 7, 1)
    assert Spread.of([1, 2, 3]).scaled(10) == Spread(15, 20, 25, 3)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (123.4, "123"), (12.34, "12.3"), (1.0, "1.00"), (0.01234, "0.0123")],
)
def test_three_digits(value: float, text: str) -> None:
    assert digits(value) == text
