"""Every error that the service raises on purpose has an HTTP status."""

from collections.abc import Iterator

import pytest

from service.api.problems import INTERNAL, KINDS
from service.app import create_app
from service.errors import SidrecError

assert callable(create_app)  # imported so that `tree` sees all of the application


def tree(kind: type[SidrecError]) -> Iterator[type[SidrecError]]:
    for child in kind.__subclasses__():
        if child.__module__.startswith("service."):
            yield child
            yield from tree(child)


@pytest.mark.parametrize("kind", list(tree(SidrecError)))
def test_each_error_has_a_status(kind: type[SidrecError]) -> None:
    assert 400 <= KINDS[kind].status <= 599
    assert KINDS[kind].title


def test_names_are_distinct() -> None:
    names = [kind.name for kind in (*KINDS.values(), INTERNAL)]
    assert len(set(names)) == len(names)
