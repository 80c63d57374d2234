"""One line for what a disk says, whoever was writing."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from model_store.errors import BuildError, ModelStoreError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors and tokenizers


@contextmanager
def disk_errors(what: str, place: object) -> Iterator[None]:
    """Raises `BuildError` for what goes wrong with files: `what`, the path (`place`, where the
    error names none) and the reason. Other errors stay what they are."""
    try:
        yield
    except ModelStoreError:
        raise
    except Exception as error:
        if said := _said(error, place):
            raise BuildError(f"{what}: {said}") from error
        raise


def _said(error: BaseException, place: object) -> str | None:
    if isinstance(error, shutil.Error):  # of a tree: source, target and reason of each file
        _, target, reason = error.args[0][0]
        return f"{target}: {reason}"
    if isinstance(error, OSError):
        path = error.filename2 or error.filename
        return f"{path or place}: {error.strerror or error}"
    if match := _RUST.search(str(error)):
        return f"{place}: {os.strerror(int(match[1]))}"
    # torch's archives fail with words of their own after the disk has failed them.
    behind = error.__cause__ or error.__context__
    while behind is not None:
        if isinstance(behind, OSError) and behind.errno in _FULL:
            return _said(behind, place)
        behind = behind.__cause__ or behind.__context__
    return None
