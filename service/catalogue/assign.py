"""The SID of a new item: the one that it brings, or the one that the bundle's quantizer gives its
text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
from structlog.typing import FilteringBoundLogger

from model_store.build.sids.quantizer import Quantizer
from model_store.build.sids.taken import Taken
from model_store.bundle import Bundle
from model_store.errors import BuildError, SidError
from model_store.sid import END, SidSpec, Trie
from service.errors import InvalidInput

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class Assigner:
    """For one bundle. `Assigner.load` reads its quantizer, if it has one that can be used."""

    def __init__(
        self, spec: SidSpec, usable: Sequence[npt.NDArray[np.bool_]], quantizer: Quantizer | str
    ) -> None:
        """usable: per level which codes the model can write; quantizer: or why there is none."""
        self._spec = spec
        self._usable = usable
        self._quantizer = quantizer
        # Numbers of the extra level are given in their order, so the first gap ends them.
        last = usable[-1]
        self._numbers = int(np.argmin([*last, False])) if spec.extra else 0

    @classmethod
    def load(cls, bundle: Bundle) -> "Assigner":
        """Not on a loop: a Hugging Face encoder may take seconds."""
        quantizer: Quantizer | str
        try:
            if (bundle.path / "quantizer").is_dir():
                quantizer = Quantizer.load(bundle.path / "quantizer")
                quantizer.check(bundle.spec)
            else:
                quantizer = f"bundle {bundle.name} {bundle.version} has no quantizer"
        except (BuildError, ImportError) as error:
            _log.warning("quantizer cannot be used", error=str(error))
            quantizer = f"the bundle's quantizer cannot be used here: {error}"
        return cls(bundle.spec, _usable(bundle), quantizer)

    def check(self, sid: str) -> None:
        """Raises `InvalidInput` for a SID that does not follow the spec, or that the model cannot
        write."""
        try:
            [codes] = self._spec.parse([sid])
        except (SidError, UnicodeError) as error:
            raise InvalidInput("sid", str(error)) from error
        self._check_usable(codes.tolist())

    def check_text(self, attributes: Mapping[str, Any]) -> None:
        """Raises `InvalidInput` for an item that cannot have a SID without bringing it."""
        if isinstance(self._quantizer, str):
            raise InvalidInput("sid", f"{self._quantizer}, so a new item must bring its SID")
        if not self._quantizer.texts([attributes])[0]:
            names = self._quantizer.text
            field = "title" if "title" in names else f"attributes.{names[0]}"
            reason = f"a new item needs a text ({' or '.join(names)}), or a SID of its own"
            raise InvalidInput(field, reason)

    def assign(
        self, items: Sequence[Mapping[str, Any]], trie: Trie, given: Sequence[str] = ()
    ) -> list[str | InvalidInput]:
        """A SID for each of the attributes of new items, which passed `check_text`; or why not.

        `given` are SIDs that are taken, besides those of `trie`.
        """
        if not items:
            return []
        quantizer, spec = self._quantizer, self._spec
        assert isinstance(quantizer, Quantizer)
        taken = Taken(trie, spec.depth - spec.extra, self._numbers)
        for codes in spec.parse(given).tolist():
            taken.take(codes)
        vectors = quantizer.vectors(quantizer.texts(items))
        found = quantizer.residual.encode(vectors)
        placed = taken.place(
            found,
            quantizer.collisions,
            lambda row: quantizer.residual.last_distances(vectors[[row]], found[[row]])[0],
        )
        return [self._text(codes) for codes in placed[:, : spec.depth].tolist()]

    def _text(self, codes: list[int]) -> str | InvalidInput:
        try:
            self._check_usable(codes)
        except InvalidInput as error:
            return InvalidInput("sid", f"the quantizer's does not do: {error.reason}; bring one")
        return self._spec.format(codes)

    def _check_usable(self, codes: Sequence[int]) -> None:
        for level, usable, code in zip(self._spec.levels, self._usable, codes, strict=True):
            if code != END and not usable[code]:
                raise InvalidInput("sid", f"the model has no token {level.token(code)}")


def _usable(bundle: Bundle) -> list[npt.NDArray[np.bool_]]:
    """Per level which codes are one token of the tokenizer."""
    usable = []
    for level, ids in zip(bundle.spec.levels, bundle.level_tokens, strict=True):
        texts = [level.token(code) for code in range(level.size)]
        pieces = bundle.tokenizer.encode_batch(texts, add_special_tokens=False)
        usable.append(
            np.array([piece.ids == [token] for piece, token in zip(pieces, ids, strict=True)])
        )
    return usable
