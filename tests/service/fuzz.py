"""The OpenAPI document turned against the service: `python -m tests.service.fuzz --seconds 300`.

Schemathesis makes requests that the document allows, and others that it forbids, and holds every
answer against it: no 500, no status, media type or body that is not documented, nothing accepted
that must not be. Two things are left open. Whether what the document allows is accepted: it does
not know which attributes, items and scenes a bundle has. And whether other methods of a path are
refused: ids may hold slashes, so that `DELETE /v1/users/a/history` is about the user `a/history`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from service.keys.key import SCOPES
from tests.service.keys.made import key, write
from tests.service.titled import titled_bundle

SECRET = "a-key-for-everything"
_LEFT_OPEN = "positive_data_acceptance,unsupported_method"


def fuzz(
    url: str, seconds: int, seed: int | None = None, secret: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Runs schemathesis against a service for about `seconds`; its exit status is 0 where nothing
    was found. `secret` is a key for everything, of a service that has keys; then it also asks with
    none and with wrong ones, which must be refused. Without, the document is taken as that of a
    service that asks nobody for a key."""
    options = ["--max-time", str(seconds), "--exclude-checks", _LEFT_OPEN, "--no-color"]
    options += ["--continue-on-failure", "--no-shrink", "--suppress-health-check", "all"]
    options += ["--url", url]
    if seed is not None:
        options += ["--seed", str(seed)]
    document = httpx.get(f"{url}/openapi.json").json()
    if secret is not None:
        options += ["--header", f"Authorization: Bearer {secret}"]
    else:
        for operations in document["paths"].values():
            for operation in operations.values():
                del operation["security"]
    # In a folder of its own: it writes down what it found, and would begin with that next time.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "openapi.json").write_text(json.dumps(document))
        return subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", *options],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


def main() -> None:
    # Imported here: the tests of processes are tests, and pytest shall be the one to load them.
    from tests.service.test_app_process import Process

    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=int, default=300)
    arguments.add_argument("--seed", type=int)
    arguments.add_argument("--keys", action="store_true", help="against a service that has keys")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = titled_bundle(Path(folder))
        settings = {"SIDREC_STATE_DIR": str(Path(folder) / "state"), "SIDREC_THREADS": "1"}
        if given.keys:
            file = write(Path(folder) / "keys.toml", key("fuzz", SECRET, *SCOPES))
            settings["SIDREC_KEYS_FILE"] = str(file)
        process = Process(["--bundle", str(bundle.path)], settings)
        try:
            with process.client() as client:
                done = fuzz(
                    str(client.base_url), given.seconds, given.seed, SECRET if given.keys else None
                )
        finally:
            process.end(15)
    print(done.stdout)
    print(*(line for line in process.lines if '"internal error"' in line))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
