"""Which arm a user belongs to: a pure function of the salt, the shares and the user id.

BLAKE2b (of Python's standard library) hashes salt and user id to two independent 64-bit numbers.
The first says whether the user takes part at all, the second in which arm, so that an experiment
whose traffic grows keeps everybody where they are. Another salt divides them anew, independently.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from struct import Struct

_NUMBERS = Struct("<QQ")
_RANGE = 2.0**64


class Assignment:
    """Divides users into arms by their `shares` of all users, which sum to 1 at most.

    Arms keep their order: it is part of what decides.
    """

    def __init__(self, salt: str, shares: Mapping[str, float]) -> None:
        # The person parameter keeps these hashes apart from all others, the zero byte the salt
        # from the user id, for no salt has one.
        self._hash = hashlib.blake2b(salt.encode() + b"\0", digest_size=16, person=b"sidrec-arms")
        total = sum(shares.values())
        self._inside = total * _RANGE
        self._arms = list(shares)
        # Sums such as 0.1 + 0.2 miss their value by little: the last arm takes what is left.
        self._bounds = [edge / total * _RANGE for edge in accumulate(shares.values())][:-1]

    def arm(self, user_id: str) -> str | None:
        """The arm of a user, the same at every call; None for one who does not take part."""
        state = self._hash.copy()
        state.update(user_id.encode())
        inside, place = _NUMBERS.unpack(state.digest())
        if inside >= self._inside:
            return None
        return self._arms[bisect_right(self._bounds, place)]
