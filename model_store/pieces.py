"""Texts beside SIDs, in tokens, for prompts that are put together from pieces.

A tokenizer cuts text at SID tokens before it does anything else, so pieces that are tokenised
beside a SID and joined as ids equal the whole text tokenised at once. *Beside* one, because some
tokenizers treat the beginning or the end of a text differently.
"""

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from model_store.errors import SidError

UNCUT = "the tokenizer does not cut text at the tokens of SIDs"

Ids = npt.NDArray[np.int64]


class Pieces:
    """`sid_token` is any one token of a SID. Raises `SidError` for a tokenizer that does not cut
    text there."""

    def __init__(self, tokenizer: Tokenizer, sid_token: str) -> None:
        self._tokenizer = tokenizer
        self._sid = sid_token
        self._id = tokenizer.token_to_id(sid_token)

    def whole(self, text: str) -> Ids:
        """The tokens of a text as it is."""
        return np.array(self._tokenizer.encode(text).ids, np.int64)

    def before(self, text: str) -> Ids:
        """Those of a text in front of a SID, with what the tokenizer puts at every beginning."""
        ids = self.whole(text + self._sid)
        return ids[: self._places(ids, 1)[-1]]

    def between(self, text: str) -> Ids:
        """Those of a text between two SIDs."""
        ids = self.whole(self._sid + text + self._sid)
        places = self._places(ids, 2)
        return ids[places[0] + 1 : places[-1]]

    def behind(self, text: str) -> Ids:
        """Those of a text behind a SID, to its end."""
        ids = self.whole(self._sid + text)
        return ids[self._places(ids, 1)[0] + 1 :]

    def _places(self, ids: Ids, least: int) -> Ids:
        places = np.flatnonzero(ids == self._id)
        if len(places) < least:
            raise SidError(UNCUT)
        return places
