"""Schemathesis against a real service, in short; `make fuzz` runs it for five minutes."""

import signal
from pathlib import Path

import pytest

from service.keys.key import SCOPES
from tests.service.fuzz import SECRET, fuzz
from tests.service.keys.made import key, write
from tests.service.test_app_process import Process
from tests.service.titled import titled_bundle

SECONDS = 10


@pytest.mark.parametrize("keyed", [False, True], ids=["open", "keyed"])
def test_every_answer_is_one_that_the_document_knows(tmp_path: Path, keyed: bool) -> None:
    bundle = titled_bundle(tmp_path)
    state = {"SIDREC_STATE_DIR": str(tmp_path / "state"), "SIDREC_THREADS": "1"}
    if keyed:
        file = write(tmp_path / "keys.toml", key("fuzz", SECRET, *SCOPES))
        state["SIDREC_KEYS_FILE"] = str(file)
    process = Process(["--bundle", str(bundle.path)], state)
    try:
        with process.client() as client:
            done = fuzz(str(client.base_url), SECONDS, seed=20, secret=SECRET if keyed else None)
    finally:
        code, stderr = process.end(signal.SIGTERM)
    assert done.returncode == 0, done.stdout
    assert (code, stderr) == (0, "")
