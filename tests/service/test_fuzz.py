"""Schemathesis against a real service, in short; `make fuzz` runs it for five minutes."""

import signal
from pathlib import Path

from tests.service.fuzz import fuzz
from tests.service.test_app_process import Process
from tests.service.titled import titled_bundle

SECONDS = 15


def test_every_answer_is_one_that_the_document_knows(tmp_path: Path) -> None:
    bundle = titled_bundle(tmp_path)
    state = {"SIDREC_STATE_DIR": str(tmp_path / "state"), "SIDREC_THREADS": "1"}
    process = Process(["--bundle", str(bundle.path)], state)
    try:
        with process.client() as client:
            done = fuzz(str(client.base_url), SECONDS, seed=20)
    finally:
        code, stderr = process.end(signal.SIGTERM)
    assert done.returncode == 0, done.stdout
    assert (code, stderr) == (0, "")
