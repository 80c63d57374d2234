"""Full disks, under Redis and under the store of bundles."""

import subprocess
import sys
from pathlib import Path

from model_store.store import Store
from tests.faults.conftest import Report
from tests.faults.disks import fill, small_disk
from tests.faults.processes import Redis, Service
from tests.faults.traffic import Traffic
from tests.tiny import TEMPLATE, make_bundle, random_items


def test_redis_disk_full(
    service: Service, redis_port: int, tmp_path: Path, scale: float, report: Report
) -> None:
    with (
        small_disk(tmp_path / "disk", 8) as disk,
        Redis(redis_port, disk / "redis", appendfsync="everysec") as redis,
    ):
        with Traffic(service) as traffic:
            traffic.wait(0.4 * scale)
            filling = fill(disk)
            traffic.wait(1.2 * scale)
            filling.unlink()
            recovery_s = traffic.until_well()
            traffic.wait(0.3 * scale)
        redis.kill()
        redis.start()
        lost = traffic.lost()
    assert lost == 0
    assert recovery_s < 10
    assert traffic.how("events").total() > traffic.how("events")["accepted"] > 0
    assert set(traffic.how("recommendations")) == {"model"}
    report.saw(f"{traffic.account()}, {lost} lost; well {recovery_s:.1f} s after its end")


def test_store_disk_full(tmp_path: Path, report: Report) -> None:
    (template := tmp_path / "template.txt").write_text(TEMPLATE.text)
    with small_disk(tmp_path / "disk", 16) as disk:
        store = Store(disk / "store")
        make_bundle(disk, random_items(60, (4, 4, 4)), name="shop")
        store.promote("shop", 1)
        publish = [
            *(sys.executable, "-m", "service.cli", "bundle", "create", "--name", "shop"),
            *("--model", str(disk / "model-shop"), "--template", str(template)),
            *("--items", str(disk / "items-shop.jsonl"), "--out", str(store.root)),
        ]
        settings = {
            "store": store.root,
            "engine": "fake",
            "state_dir": tmp_path / "state",
        }
        with Service(tmp_path / "log", settings) as service, Traffic(service) as traffic:
            filling = fill(disk)
            failed = subprocess.run(publish, capture_output=True, text=True, check=False)
            assert failed.returncode == 1
            assert failed.stderr.count("\n") == 1, failed.stderr
            assert "No space left" in failed.stderr
            assert store.versions("shop") == [1]
            assert not [p for p in store.root.iterdir() if p.name.startswith(".staging")]
            with service.client() as client:
                assert client.post("/v1/models", json={"version": 2}).status_code == 404
                filling.unlink()
                subprocess.run(publish, check=True, capture_output=True)
                assert client.post("/v1/models", json={"version": 2}).status_code == 201
            traffic.stop()
            assert set(traffic.how("recommendations")) == {"model"}
    report.saw(
        f"exit code 1, “{failed.stderr.split(': ')[0]}”; only version 1 there; with room again"
        f" version 2 is there and loads; {traffic.account()}"
    )
