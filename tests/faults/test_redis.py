"""What becomes of events and answers when Redis is away, in one way or another."""

import signal
from collections.abc import Callable
from pathlib import Path

import psutil

from model_store.bundle import Bundle
from tests.faults.conftest import Report
from tests.faults.processes import Redis, Service, eventually, free_port
from tests.faults.proxy import SlowWire
from tests.faults.traffic import Traffic

BEFORE_S, DURING_S, AFTER_S = 0.4, 1.0, 0.3
AWAY = "history_unavailable"
RECOVERY_S = 10
"""Far more than it takes: test machines do other things too."""


def broken(
    traffic: Traffic, scale: float, begin: Callable[[], object], end: Callable[[], object]
) -> str:
    """Breaks it under traffic and mends it; how long the recovery took, in words."""
    traffic.wait(BEFORE_S * scale)
    begin()
    traffic.wait(DURING_S * scale)
    end()
    recovery_s = traffic.until_well()
    assert recovery_s < RECOVERY_S
    traffic.wait(AFTER_S * scale)
    return f"well {recovery_s:.1f} s after its end"


def assert_refused(traffic: Traffic) -> None:
    refused = [answer for answer in traffic.answers["events"] if answer.status == 503]
    assert refused
    assert len(refused) < len(traffic.answers["events"])


def test_redis_killed(service: Service, redis: Redis, scale: float, report: Report) -> None:
    with Traffic(service) as traffic:
        recovery = broken(traffic, scale, redis.kill, redis.start)
    assert_refused(traffic)
    assert set(traffic.how("recommendations")) == {"model", AWAY}
    lost = traffic.lost()
    assert lost == 0
    report.saw(f"{traffic.account()}, {lost} lost; {recovery}")


def test_redis_stopped(service: Service, redis: Redis, scale: float, report: Report) -> None:
    with Traffic(service) as traffic:
        recovery = broken(
            traffic,
            scale,
            lambda: redis.signal(signal.SIGSTOP),
            lambda: redis.signal(signal.SIGCONT),
        )
    assert_refused(traffic)
    assert set(traffic.how("recommendations")) == {"model", AWAY}
    assert traffic.slowest_s("recommendations") < 10
    lost = traffic.lost()
    assert lost == 0
    report.saw(f"{traffic.account()}, {lost} lost; {recovery}")


def test_redis_out_of_memory(service: Service, redis: Redis, scale: float, report: Report) -> None:
    with Traffic(service) as traffic:
        recovery = broken(
            traffic,
            scale,
            lambda: redis.command("CONFIG", "SET", "maxmemory", "1"),
            lambda: redis.command("CONFIG", "SET", "maxmemory", "0"),
        )
    assert_refused(traffic)
    assert traffic.how("recommendations")["model"] > 0.5 * len(traffic.answers["recommendations"])
    lost = traffic.lost()
    assert lost == 0
    report.saw(f"{traffic.account()}, {lost} lost; {recovery}")


def test_redis_read_only(service: Service, redis: Redis, scale: float, report: Report) -> None:
    nowhere = str(free_port())
    with Traffic(service) as traffic:
        recovery = broken(
            traffic,
            scale,
            lambda: redis.command("REPLICAOF", "127.0.0.1", nowhere),
            lambda: redis.command("REPLICAOF", "NO", "ONE"),
        )
    assert_refused(traffic)
    assert traffic.how("recommendations")["model"] > 0.5 * len(traffic.answers["recommendations"])
    lost = traffic.lost()
    assert lost == 0
    report.saw(f"{traffic.account()}, {lost} lost; {recovery}")


def test_redis_emptied(
    service: Service, redis: Redis, tmp_path: Path, scale: float, report: Report
) -> None:
    with Traffic(service) as before:
        before.wait(BEFORE_S * scale)
        redis.kill()
        before.wait(BEFORE_S * scale)
        with Redis(redis.port, tmp_path / "empty"), service.client() as client:
            before.until_well("no_history")
            before.stop()
            gone = before.missing()
            with Traffic(service, "later") as after:
                recovery_s = after.until_well()
                after.wait(AFTER_S * scale)
            assert client.get("/readyz").json()["status"] == "ready"
            lost = after.lost()
            assert lost == 0
    assert gone
    assert set(before.how("recommendations")) <= {"model", AWAY, "no_history"}
    report.saw(
        f"{gone} of {len(before.acknowledged)} events are gone; {before.account()};"
        f" afterwards {lost} lost of {len(after.acknowledged)}, well after {recovery_s:.1f} s"
    )


def test_redis_slow(
    service: Service, redis_port: int, tmp_path: Path, scale: float, report: Report
) -> None:
    with (
        Redis(free_port(), tmp_path / "redis") as behind,
        SlowWire(redis_port, behind.port) as wire,
        Traffic(service) as traffic,
    ):

        def delay(seconds: float) -> None:
            wire.delay_s = seconds

        recovery = broken(traffic, scale, lambda: delay(0.4), lambda: delay(0))
        traffic.stop()
        lost = traffic.lost()
        assert lost == 0
    assert_refused(traffic)
    assert set(traffic.how("recommendations")) == {"model", AWAY}
    report.saw(f"{traffic.account()}, {lost} lost; {recovery}")


def test_own_redis_killed(bundle: Bundle, tmp_path: Path, scale: float, report: Report) -> None:
    settings = {"bundle": bundle.path, "engine": "fake", "state_dir": tmp_path / "state"}
    with Service(tmp_path / "log", settings) as service, Traffic(service) as traffic:
        traffic.wait(BEFORE_S * scale)
        before = _own_redis(service)
        before.kill()
        noticed_s = eventually(lambda: traffic.how("events").total() > traffic.accepted())
        recovery_s = noticed_s + traffic.until_well()
        assert recovery_s < RECOVERY_S
        traffic.wait(AFTER_S * scale)
        traffic.stop()
        assert _own_redis(service).pid != before.pid
        lost = traffic.lost()
        assert lost == 0
        assert service.end() == 0
        assert "Traceback" not in service.said
    report.saw(f"{traffic.account()}, {lost} lost; well {recovery_s:.1f} s after it was killed")


def _own_redis(service: Service) -> psutil.Process:
    [server] = psutil.Process(service.process.pid).children()
    assert "redis-server" in server.name()
    return server
