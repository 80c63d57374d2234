"""Programs that tests drive and that no Python package brings."""

import os
import shutil
from typing import NoReturn

import pytest

# The program, and the Debian package that has it; requirements/system.txt lists the packages.
PACKAGES = {
    "chromium": "chromium",
    "redis-server": "redis-server",
    "nginx": "nginx-light",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "node": "nodejs",
    "curl": "curl",
    "jq": "jq",
    "redis-cli": "redis-tools",
}


def missing(what: str) -> NoReturn:
    """Ends a test for want of something: it skips and says what; in CI, where nothing may skip, it
    fails."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


def program(name: str) -> str:
    """The path of a program. Where it is `missing`, its package is named."""
    # Debian has servers in a folder that is not on everybody's PATH.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    missing(f"{name} is missing: apt-get install {PACKAGES[name]}")
