"""What a user is called in log lines."""

import hashlib
import secrets


class Pseudonyms:
    """A keyed hash of a user's id, so that lines of one user can be found and none can be told
    apart from another's without the key; the id itself where `clear`.

    Without a `key` a random one is taken: nothing then links what two processes write.
    """

    def __init__(self, key: str | None = None, *, clear: bool = False) -> None:
        self._clear = clear
        # The hash takes up to 64 bytes.
        self._key = hashlib.blake2b(key.encode()).digest() if key else secrets.token_bytes(32)

    def of(self, user_id: str) -> str:
        """16 hexadecimal digits, or the id."""
        if self._clear:
            return user_id
        return hashlib.blake2b(user_id.encode(), digest_size=8, key=self._key).hexdigest()
