"""The search for the highest rate."""

from dataclasses import dataclass, field

import pytest

from bench.load.find import highest


@dataclass(frozen=True)
class Probe:
    rate: float
    holds: bool


@dataclass
class Service:
    """What holds up to `capacity` and not beyond; where it is failing, never."""

    capacity: float
    failing: bool = False
    probed: list[float] = field(default_factory=list)

    def probe(self, rate: float) -> Probe:
        self.probed.append(rate)
        return Probe(rate, holds=rate <= self.capacity and not self.failing)


@pytest.mark.parametrize("capacity", [0.7, 5, 8, 37.2, 1000])
def test_the_rate_found_is_within_reach_of_the_true_one(capacity: float) -> None:
    service = Service(capacity)
    rate, held = highest(service.probe, start=8, within=0.05, repeats=3)
    assert rate is not None
    assert rate <= capacity <= 1.05 * rate
    assert [one.rate for one in held] == service.probed[-3:] == [rate] * 3
    assert len(service.probed) < 25


@pytest.mark.parametrize("service", [Service(0.3), Service(100, failing=True)])
def test_no_rate_holds(service: Service) -> None:
    assert highest(service.probe, start=8, within=0.05, repeats=3) == (None, [])


def test_a_rate_that_held_by_luck_is_given_up() -> None:
    service = Service(100)

    def once(rate: float) -> Probe:
        if rate > 50 and rate in service.probed:
            return Service(0).probe(rate)
        return service.probe(rate)

    rate, held = highest(once, start=8, within=0.05, repeats=1)
    # Above 50, a second look fails; the first rate below that had none yet.
    assert rate is not None
    assert rate < 100 / 1.05
    assert held[0].holds
