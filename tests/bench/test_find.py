"""The search for the highest rate, and the command around it."""

from dataclasses import dataclass, field

import pytest
import typer
from typer.testing import CliRunner

from bench.http_load import Answered
from bench.load import Probe, highest, milliseconds
from model_store.bundle import Bundle
from service.cli import cli
from tests.bench.conftest import Measure
from tests.bench.test_http_load import SlowServer, server

__all__ = ["server"]


@dataclass
class Service:
    """A service whose p99 is far below the limit of a second up to `capacity`, and far above it
    beyond; a failing one refuses everything."""

    capacity: float
    failing: bool = False
    probed: list[float] = field(default_factory=list)

    def probe(self, rate: float) -> Probe:
        self.probed.append(rate)
        outcome = "503" if self.failing else "200"
        seconds = 0.1 if rate <= self.capacity else 5.0
        return Probe(rate, Answered([seconds] * 10, {outcome: 10}, 1.0, 0.1), limit_s=1.0)


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


@pytest.mark.parametrize(
    ("text", "expected"), [("100ms", 100.0), ("0.25s", 250.0), ("80", 80.0), (200.0, 200.0)]
)
def test_times(text: object, expected: float) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize("text", ["soon", "-5ms", "0", "nan"])
def test_no_times(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        milliseconds(text)


def test_it_finds_the_capacity_of_a_server(
    measure: Measure, server: SlowServer, bundle: Bundle
) -> None:
    """50 a second at best; the limit leaves room for a queue of ten."""
    found = measure(
        "load",
        server.url,
        *("--bundle", bundle.path, "--p99", "220ms", "--seconds", 0.6, "--start", 30),
        *("--within", 0.5, "--repeats", 1, "--no-poisson"),
    )
    assert 0.5 <= found["highest_rate"] < 80
    assert found["p99_ms_at_highest"][0] <= 220
    assert {"rate", "holds", "p50_ms", "p99_ms", "failed", "load_cpu_share"} <= set(
        found["rows"][0]
    )
    assert not all(row["holds"] for row in found["rows"])
    assert b'"history"' in server.bodies[0]


def test_nobody_is_there(bundle: Bundle) -> None:
    arguments = ["bench", "load", "http://127.0.0.1:9", "--bundle", str(bundle.path)]
    result = CliRunner().invoke(
        cli, [*arguments, "--seconds", "0.2", "--out", str(bundle.path / "..")]
    )
    assert result.exit_code == 1
    assert "not even 0.5 a second" in result.output
