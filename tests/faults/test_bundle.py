"""Files of bundles that change under a service that has them in memory."""

from pathlib import Path

from model_store.store import Store
from tests.faults.conftest import Report
from tests.faults.processes import Service
from tests.faults.traffic import check
from tests.tiny import make_bundle, random_items

HISTORY = ["item-1", "item-2", "item-3"]


def test_bundle_damaged(tmp_path: Path, scale: float, report: Report) -> None:
    items = random_items(300, (6, 6, 6))
    one, two = (make_bundle(tmp_path, items, name="shop") for _ in range(2))
    Store(tmp_path / "store").promote("shop", 1)
    settings = {"store": tmp_path / "store", "state_dir": tmp_path / "state"}
    with Service(tmp_path / "log", settings) as service, service.client() as client:

        def answers() -> list[list[str]]:
            found = []
            for number in range(int(20 * max(1, scale / 2))):
                body = {"history": [*HISTORY, f"item-{number}"], "k": 20, "explain": True}
                document = check(client.post("/v1/recommendations", json=body))
                assert document["source"] == "model"
                assert document["bundle"] == {"name": "shop", "version": 1}
                found.append([item["item_id"] for item in document["items"]])
            return found

        before = answers()
        for file in sorted(one.path.rglob("*")):
            if file.is_file():
                middle = file.stat().st_size // 2
                with file.open("r+b") as damaged:
                    damaged.seek(middle)
                    damaged.write(b"\xff\x00\xff")
        assert answers() == before
        for file in one.path.rglob("*"):
            if file.is_file():
                with file.open("r+b") as cut:
                    cut.truncate(0)
        assert answers() == before

        weights = next((two.path / "model").glob("*.safetensors"))
        content = weights.read_bytes()
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit
        refused = client.post("/v1/models", json={"version": 2})
        assert refused.status_code == 422
        assert weights.name in refused.json()["detail"]
        weights.write_bytes(content[: len(content) // 2])
        assert client.post("/v1/models", json={"version": 2}).status_code == 422
        weights.write_bytes(content)
        assert client.post("/v1/models", json={"version": 2}).status_code == 201
        assert answers() == before
        assert "Traceback" not in service.said
    report.saw(
        f"{len(before)} answers, the same when every file had changed and when every file was"
        f" empty; loading with one bit wrong: 422, “{refused.json()['errors'][0]['message']}”;"
        " mended: 201"
    )
