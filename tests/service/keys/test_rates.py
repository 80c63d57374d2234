"""How often a key may ask."""

import asyncio
import time
from contextlib import suppress

import pytest

from service.errors import TooOften
from service.keys.rates import Rates
from tests.service.keys.made import key


async def admitted(rates: Rates, name: str, rate: str, asked: int) -> int:
    count = 0
    for _ in range(asked):
        with suppress(TooOften):
            await rates.count(key(name, "s", "read", rate=rate))
            count += 1
    return count


async def test_a_key_has_its_own_limit() -> None:
    rates = Rates()
    assert await admitted(rates, "a", "10/hour", 30) == 10
    assert await admitted(rates, "b", "5/hour", 30) == 5
    assert await admitted(rates, "a", "10/hour", 3) == 0
    assert await admitted(rates, "a", "12/hour", 3) == 3  # a new limit counts anew


async def test_what_is_left_is_said() -> None:
    rates, one = Rates(), key("a", "s", "read", rate="3/minute")
    left = [await rates.count(one) for _ in range(3)]
    assert [(one.limit, one.window_s, one.remaining) for one in left if one] == [
        (3, 60, 2),
        (3, 60, 1),
        (3, 60, 0),
    ]
    with pytest.raises(TooOften, match="3/minute") as caught:
        await rates.count(one)
    assert 1 <= caught.value.retry_after <= 120


async def test_a_key_without_a_limit_is_not_counted() -> None:
    rates = Rates()
    assert [await rates.count(key("a", "s", "read")) for _ in range(100)] == [None] * 100


async def test_whoever_waits_as_told_may_ask_again() -> None:
    rates, one = Rates(), key("a", "s", "read", rate="5/second")
    deadline = time.monotonic() + 10
    for _ in range(2):
        while True:
            try:
                await rates.count(one)
            except TooOften as error:
                await asyncio.sleep(error.retry_after)
                assert await rates.count(one)
                break
            assert time.monotonic() < deadline


async def test_the_rate_holds_over_time() -> None:
    """Not twice the rate around the end of a window, as whole windows would allow."""
    rates, one = Rates(), key("a", "s", "read", rate="50/second")
    began, count = time.monotonic(), 0
    while (now := time.monotonic()) < began + 2:
        try:
            await rates.count(one)
            count += 1
        except TooOften:
            await asyncio.sleep(0.002)
    assert count <= 50 * (now - began) + 50 + 5
