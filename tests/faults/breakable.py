"""`sidrec …` whose engine can be broken from outside: `python -m tests.faults.breakable serve`.

SIGUSR1 ends the engine's thread, at whichever instruction it has reached. A query of `POISON` beams
raises in the middle of its batch.
"""

import ctypes
import signal
import threading
from collections.abc import Sequence

from service.cli import main
from service.engine.base import Beam, Query
from service.engine.torch.engine import TorchEngine

POISON = 13


class Poisoned(TorchEngine):
    def _run(self, queries: Sequence[Query]) -> list[list[Beam]]:
        found = super()._run(queries)
        if any(query.beam_width == POISON for query in queries):
            raise ArithmeticError("poison")
        return found


def end_engine(*_: object) -> None:
    [thread] = [t for t in threading.enumerate() if t.name == "sidrec-engine"]
    assert thread.ident is not None
    number, error = ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(number, error) == 1


if __name__ == "__main__":
    import service.engine.torch.engine as torch_engine

    torch_engine.TorchEngine = Poisoned  # type: ignore[misc]
    signal.signal(signal.SIGUSR1, end_engine)
    main()
