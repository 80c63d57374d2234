"""From a history to the token ids of a prompt that the model has room for.

It knows the bundle's template and tokenizer; no users, no item ids.
"""

from collections.abc import Sequence

from model_store.bundle import Bundle
from model_store.prompt import Profile
from service.errors import InvalidInput


class PromptBuilder:
    """Prompts for one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._template = bundle.manifest.prompt
        self._opening = bundle.spec.opening
        self._sids = bundle.sids
        self._limit = bundle.max_prompt_tokens
        self._tokenizer = bundle.tokenizer
        # A tokenizer may have been saved with either; what is cut here, and where, we decide.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def build(
        self, rows: Sequence[int], profile: Profile | None = None, scene: str | None = None
    ) -> tuple[list[int], int]:
        """The same as `build_from`, of rows of the bundle's catalogue."""
        return self.build_from([self._sids[row] for row in rows], profile, scene)

    def build_from(
        self, sids: Sequence[str], profile: Profile | None = None, scene: str | None = None
    ) -> tuple[list[int], int]:
        """Token ids, and how many of the `sids` (oldest first) they speak of.

        The oldest ones fall off until the rest fits. Raises `InvalidInput` where not even an empty
        history fits.
        """
        before, after = self._template.around(profile, scene)

        def encode(count: int) -> list[int]:
            history = self._template.separator.join(sids[len(sids) - count :])
            ids: list[int] = self._tokenizer.encode(before + history + after + self._opening).ids
            return ids

        tokens = encode(len(sids))
        if len(tokens) <= self._limit:
            return tokens, len(sids)
        most, excess = len(sids), len(tokens)  # too many rows, and the tokens they make
        fits, tokens = 0, encode(0)
        if len(tokens) > self._limit:
            raise InvalidInput("profile", f"the prompt has no room for it ({len(tokens)} tokens)")
        while most - fits > 1:
            # SIDs are about equally long, so a straight line between the two ends hits at once.
            share = (self._limit - len(tokens)) / (excess - len(tokens))
            guess = min(max(fits + int(share * (most - fits)), fits + 1), most - 1)
            trial = encode(guess)
            if len(trial) <= self._limit:
                fits, tokens = guess, trial
            else:
                most, excess = guess, len(trial)
        return tokens, fits
