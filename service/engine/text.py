"""A text on its way through an engine, token by token, and its caller's end of it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Text:
    """`tokens` are those written so far; a caller that has gone cancels `future`."""

    prompt: Sequence[int]
    max_tokens: int
    tokens: list[int] = field(default_factory=list)
    future: Future[list[int]] = field(default_factory=Future)

    def extend(self, steps: Iterator[int]) -> bool:
        """Writes one token more; whether there was one to write."""
        if len(self.tokens) == self.max_tokens:
            return False
        token = next(steps, None)
        if token is None:
            return False
        self.tokens.append(token)
        return True

    def finish(self, outcome: list[int] | BaseException) -> None:
        """Hands over the outcome; a caller that has gone, or has one already, is left alone."""
        if self.future.done() or not self.future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)
