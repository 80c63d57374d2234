"""A query on its way through the engine, and its caller's end of it."""

from concurrent.futures import Future
from dataclasses import dataclass, field

from service.engine.base import Beam, Query
from service.engine.vllm.core import Prompt
from service.errors import DeadlinePassed


@dataclass(slots=True, eq=False)
class Task:
    """`prompt` is the core's, once it has started; a caller that has gone cancels `future`."""

    query: Query
    future: Future[list[Beam]] = field(default_factory=Future)
    prompt: Prompt | None = None

    def gone(self) -> bool:
        """Whether nobody waits, or it is too late to start."""
        if not self.future.done() and self.query.late:
            self.finish(DeadlinePassed("the deadline passed while the query waited"))
        return self.future.done()

    def finish(self, outcome: list[Beam] | BaseException) -> None:
        """Hands over the outcome; a caller that has gone, or has one already, is left alone."""
        if self.future.done() or not self.future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)
