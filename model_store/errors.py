"""What can be wrong with a model. Nothing here knows the service or HTTP.

ModelStoreError
├── SidError        SIDs that do not follow one form, or leave their codebooks
├── BundleError     a bundle that must not be served; `problems` has one line for each reason
├── StoreError      a store has no such bundle, version or alias, or must not do what was asked
└── BuildError      a build cannot go on: its configuration or its input is unusable
"""

from collections.abc import Sequence


class ModelStoreError(Exception):
    """Base of everything that the model store raises on purpose."""


class SidError(ModelStoreError):
    """SIDs that do not follow one form, or leave their codebooks."""


class BundleError(ModelStoreError):
    """A bundle that must not be served; `problems` has one line for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class StoreError(ModelStoreError):
    """A store has no such bundle, version or alias, or must not do what was asked."""


class BuildError(ModelStoreError):
    """A build cannot go on: its configuration or its input is unusable."""
