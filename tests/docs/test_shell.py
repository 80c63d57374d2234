"""How pages are read: commands, outputs, and what counts as the same output."""

import pytest

from tests.docs.interface import mistakes
from tests.docs.shell import Command, agrees, commands, simple_commands


def test_commands_with_their_outputs() -> None:
    text = "$ echo 'a\nb'\na\nb\n$ ls \\\n    --all\n$ true\n"
    assert commands(text) == [
        Command("echo 'a\nb'", "a\nb"),
        Command("ls \\\n    --all"),
        Command("true"),
    ]


def test_commands_alone() -> None:
    text = "cat > x <<END\nhello\nEND\n# a remark\nfor i in 1 2; do\n  echo $i\ndone\n"
    assert [command.text for command in commands(text)] == [
        "cat > x <<END\nhello\nEND",
        "for i in 1 2; do\n  echo $i\ndone",
    ]


def test_the_programs_of_a_line() -> None:
    text = "A=1 sidrec serve --port 0 &\ncurl x | python3 -m json.tool  # why"
    assert list(simple_commands(text)) == [
        ["sidrec", "serve", "--port", "0"],
        ["curl", "x"],
        ["python3", "-m", "json.tool"],
    ]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("the same", "the same\n"),
        ('{"a": 1}', '{"a":1}'),
        ("began …\nended", "began 1\n2\n3\nended"),
        ("took 1.25 s", "took 13.5 s"),
        ("-2.5", "-2.5818"),
        ("id 0123456789abcdef0123456789abcdef", "id 0123456789abcdef0123456789abcde0"),
        ("at 2026-11-25T11:27:30Z", "at 2027-01-02T03:04:05.678Z"),
    ],
)
def test_what_agrees(shown: str, printed: str) -> None:
    assert agrees(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("the same", "the other"),
        ('{"a": 1}', '{"a":2}'),
        ('{"a": 1}', '{"a":1,"b":2}'),
        ("began …\nended", "began"),
        ("a.b", "axb"),
    ],
)
def test_what_does_not(shown: str, printed: str) -> None:
    assert not agrees(shown, printed)


@pytest.mark.parametrize(
    "text", ["sidrec serve --port 0", "sidrec bench engine --rounds 7", "make test", "ls --nothing"]
)
def test_calls_that_exist(text: str) -> None:
    assert mistakes(text.split()) == []


@pytest.mark.parametrize(
    "text", ["sidrec dance", "sidrec serve --warp 9", "sidrec bench engine --warp", "make tea"]
)
def test_calls_that_do_not(text: str) -> None:
    assert len(mistakes(text.split())) == 1
