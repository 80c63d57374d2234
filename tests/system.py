"""Programs that tests drive and that no Python package brings."""

import os
import shutil

import pytest

# The program, and the Debian package that has it; requirements/system.txt lists the packages.
_PACKAGES = {
    "chromium": "chromium",
    "redis-server": "redis-server",
    "nginx": "nginx-light",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}


def program(name: str) -> str:
    """The path of a program. Where it is missing the test skips and names the package; in CI, where
    nothing may skip, it fails."""
    # Debian has servers in a folder that is not on everybody's PATH.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    missing = f"{name} is missing: apt-get install {_PACKAGES[name]}"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
