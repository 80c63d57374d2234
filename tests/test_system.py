import os
import subprocess
from pathlib import Path

import pytest

from tests.system import PACKAGES, program

_LISTED = Path("requirements/system.txt").read_text().splitlines()


def test_every_package_is_listed_for_make_test() -> None:
    listed = {line for line in _LISTED if line and not line.startswith("#")}
    assert set(PACKAGES.values()) == listed


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_programs_start(name: str) -> None:
    flag = "-v" if name == "nginx" else "--version"
    subprocess.run([program(name), flag], check=True, capture_output=True)


def test_a_missing_program_skips_and_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install nginx-light"):
        program("nginx")


def test_in_ci_a_missing_program_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setitem(os.environ, "CI", "true")
    with pytest.raises(pytest.fail.Exception, match="nginx-light"):
        program("nginx")
