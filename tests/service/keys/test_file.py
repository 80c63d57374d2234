"""The file of keys: what it may say, and that no mistake in it shows a secret."""

from pathlib import Path

import pytest

from service.keys.file import KeysInvalid, entry, read_keys
from service.keys.key import digest, new_secret
from tests.service.keys.made import key

GOOD = f'[[key]]\nname = "shop"\nsha256 = "{digest("s")}"\nscopes = ["read"]\n'
SECRET = "sidrec_in-the-place-of-its-digest"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    keys = [
        key("shop", "a", "read", "write", rate="100/second", batch=64),
        key("ops", "b", "admin", expires="2030-01-31T00:00:00+02:00"),
        key("prometheus", "c", "metrics"),
    ]
    file = tmp_path / "keys.toml"
    file.write_text("# ours\n" + "\n".join(map(entry, keys)))
    assert read_keys(file) == keys


def test_an_empty_file_has_no_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text("# all revoked\n")
    assert read_keys(file) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("key = 3", "key: Input should be a valid list"),
        ("[key]\nname = 'x'", "key: Input should be a valid list"),
        ("[[keys]]", "keys: Extra inputs are not permitted"),
        ("[[key", "not TOML: "),
        ("[[key]]\nname = 'shop'\nscopes = ['read']", "key.0.sha256: Field required"),
        (GOOD.replace('"read"', ""), "key.0.scopes: "),
        (GOOD.replace("read", "root"), "key.0.scopes.0: Input should be 'read', 'write'"),
        (GOOD.replace("shop", "a shop"), "key.0.name: String should match pattern"),
        (GOOD.replace("shop", "anonymous"), "key.0.name: 'anonymous' is the name of those"),
        (GOOD + "rate = 'often'", "key.0.rate: must be a rate such as 100/second"),
        (GOOD + "rate = '0/second'", "key.0.rate: must be a rate such as 100/second"),
        (GOOD + "rate = 5", "key.0.rate: Input should be a valid string"),
        (GOOD + "batch = 0", "key.0.batch: Input should be greater than or equal to 1"),
        (GOOD + "expires = 2030-01-31T00:00:00", "key.0.expires: Input should have timezone info"),
        (GOOD + "expire = 2030-01-31T00:00:00Z", "key.0.expire: Extra inputs"),
        (GOOD + GOOD, "two keys are called shop"),
        (GOOD.replace(digest("s"), SECRET), "key.0.sha256: String should match pattern"),
        (GOOD + f'secret = "{SECRET}"', "key.0.secret: Extra inputs"),
    ],
)
def test_a_mistake_is_named_and_no_secret_shown(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(KeysInvalid) as caught:
        read_keys(file)
    [line] = caught.value.problems
    assert line.startswith(f"{file}: ")
    assert problem in line
    assert SECRET not in line
    assert "\n" not in line


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(KeysInvalid, match=r"none: No such file or directory$"):
        read_keys(tmp_path / "none")
    with pytest.raises(KeysInvalid, match=r": Is a directory$"):
        read_keys(tmp_path)
    (tmp_path / "latin").write_bytes(b"# \xe9")
    with pytest.raises(KeysInvalid, match=r"latin: is not UTF-8$"):
        read_keys(tmp_path / "latin")


def test_secrets_differ_and_are_long() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(one.startswith("sidrec_") and len(one) >= 50 for one in made)


def test_a_key_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        key("shop", "a", "read").name = "other"  # type: ignore[misc]
