"""From a history to the token ids of a prompt that the model has room for.

It knows the bundle's template and tokenizer; no users, no item ids.

The text around a history and the text between two SIDs are tokenised once, each beside a SID, and
a prompt is put together from ids: it costs the same however long the history.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from model_store.bundle import Bundle
from model_store.errors import SidError
from model_store.pieces import UNCUT, Ids, Pieces
from model_store.prompt import Profile
from model_store.sid.spec import END, Codes
from service.errors import InvalidInput

_FRAMES = 4096
"""Texts around a history that are kept in tokens: a profile and a scene make one."""


class PromptBuilder:
    """Prompts for one bundle.

    Raises `SidError` for a tokenizer that does not cut text at SID tokens.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._template = bundle.manifest.prompt
        self._limit = bundle.max_prompt_tokens
        self._codes = bundle.catalogue.codes
        self._level_tokens = bundle.level_tokens
        self._opening, self._closing = bundle.spec.opening, bundle.spec.closing
        self._tokenizer = bundle.tokenizer
        # A tokenizer may have been saved with either; what is cut here, and where, we decide.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        code = int(np.flatnonzero(bundle.level_tokens[0] >= 0)[0])
        self._pieces = Pieces(self._tokenizer, bundle.spec.levels[0].token(code))
        separator = self._closing + self._template.separator + self._opening
        self._between = self._pieces.between(separator)
        self._around = lru_cache(_FRAMES)(self._frame)
        self._check(bundle)

    def build(
        self, rows: Sequence[int], profile: Profile | None = None, scene: str | None = None
    ) -> tuple[list[int], int]:
        """The same as `build_from`, of rows of the bundle's catalogue."""
        return self.build_from(self._codes[np.asarray(rows, np.int64)], profile, scene)

    def build_from(
        self, codes: Codes, profile: Profile | None = None, scene: str | None = None
    ) -> tuple[list[int], int]:
        """Token ids, and how many of the SIDs `codes` (n, depth), oldest first, they speak of.

        The oldest ones fall off until the rest fits. Raises `InvalidInput` where not even an empty
        history fits.
        """
        texts = self._template.around(profile, scene)
        before, after = self._around(*texts)
        history = self._sids(codes)
        # Tokens of the last SID, of the last two, …, each with what stands in front of it.
        sizes = (history != END).sum(1)[::-1].cumsum() - len(self._between)
        fits = int(np.searchsorted(sizes, self._limit - len(before) - len(after), side="right"))
        if fits:
            told = history[len(codes) - fits :].ravel()
            told = told[told != END][len(self._between) :]
            return [*before.tolist(), *told.tolist(), *after.tolist()], fits
        tokens = self._pieces.whole(texts[0] + texts[1] + self._opening).tolist()
        if len(tokens) > self._limit:
            raise InvalidInput("profile", f"the prompt has no room for it ({len(tokens)} tokens)")
        return tokens, 0

    def _check(self, bundle: Bundle) -> None:
        rows = [0, len(bundle.catalogue) // 2, len(bundle.catalogue) - 1]
        text = self._template.render([bundle.sids[row] for row in rows]) + self._opening
        tokens, used = self.build(rows)
        if used == len(rows) and tokens != self._tokenizer.encode(text).ids:
            raise SidError(UNCUT)

    def _sids(self, codes: Codes) -> Ids:
        """The tokens of each SID, behind those that part it from the one before; (SIDs, n), `END`
        for a code that a SID lacks."""
        tokens = [
            np.where(column == END, END, ids[column])
            for ids, column in zip(self._level_tokens, codes.T, strict=True)
        ]
        between = np.broadcast_to(self._between[:, None], (len(self._between), len(codes)))
        return np.concatenate([between, np.stack(tokens)]).T

    def _frame(self, before: str, after: str) -> tuple[Ids, Ids]:
        """What stands before the first code of a history, and behind the last one."""
        start = self._pieces.before(before + self._opening)
        return start, self._pieces.between(self._closing + after + self._opening)
