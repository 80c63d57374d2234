"""A stranger's text inside a prompt, and what it must not contain.

Tokenizers cut text at their added tokens wherever they stand, so `<a_3>` in a query or a profile
would become a piece of a SID, and `<|endoftext|>` the end of the prompt. There is no way to write
such a text that every tokenizer leaves alone, so it is refused. What counts is what the tokenizer
made of the whole prompt, not how the text looks.
"""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer


class AddedTokens:
    """The tokens of a tokenizer that are no text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        added = tokenizer.get_added_tokens_decoder()
        self._text = {token: str(text.content) for token, text in added.items()}

    def __contains__(self, token: int) -> bool:
        return token in self._text

    def smuggled(self, prompt: Iterable[int], frame: Iterable[int]) -> str | None:
        """One that `prompt` has and `frame`, the same prompt without the stranger's text, has
        not, or not as often; None where there is none."""
        more = self._count(prompt) - self._count(frame)
        return self._text[min(more)] if more else None

    def _count(self, tokens: Iterable[int]) -> Counter[int]:
        return Counter(token for token in tokens if token in self._text)
