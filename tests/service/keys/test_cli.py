"""`sidrec keys …`"""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import cli
from service.keys.file import read_keys
from service.keys.key import digest


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["keys", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_a_new_key_is_one_line_for_its_owner_and_an_entry_for_the_file(tmp_path: Path) -> None:
    options = ["--rate", "100/second", "--batch", "64", "--expires", "2030-01-31T00:00:00Z"]
    code, entry, secret = run("new", "--name", "shop", "--scopes", "read, write", *options)
    assert code == 0
    assert secret.startswith("sidrec_")
    assert secret.count("\n") == 1
    assert secret.strip() not in entry
    file = tmp_path / "keys.toml"
    file.write_text(entry)
    [key] = read_keys(file)
    assert key.sha256 == digest(secret.strip())
    assert (key.name, key.batch) == ("shop", 64)
    assert key.scopes == {"read", "write"}
    # Entries can be appended to the file one after another.
    file.write_text(entry + run("new", "--name", "ops", "--scopes", "admin")[1])
    assert run("check", str(file)) == (
        0,
        "shop: read,write, 100/second, batches of 64, until 2030-01-31T00:00:00+00:00\n"
        "ops: admin\n",
        "",
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name", "a shop", "--scopes", "read"], "--name: String should match"),
        (["--name", "shop", "--scopes", "root"], "--scopes: Input should be 'read'"),
        (["--name", "shop", "--scopes", "read", "--rate", "much"], "--rate: Value error, must be"),
        (["--name", "shop", "--scopes", "read", "--batch", "0"], "--batch: Input should be"),
        (["--name", "shop", "--scopes", "read", "--expires", "soon"], "--expires: Input should"),
    ],
)
def test_what_cannot_be_a_key(options: list[str], said: str) -> None:
    code, out, error = run("new", *options)
    assert (code, out) == (1, "")
    assert error.startswith(said)


def test_a_broken_file(tmp_path: Path) -> None:
    code, out, error = run("check", str(tmp_path / "none"))
    assert (code, out) == (1, "")
    assert error == f"{tmp_path / 'none'}: No such file or directory\n"
