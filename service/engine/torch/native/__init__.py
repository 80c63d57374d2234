"""The library of `kernels.cpp`, which installing the package builds where there is a compiler."""

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch  # noqa: F401  (its OpenMP must be there when the library asks for one)

_ADDRESS, _NUMBER = ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS = {
    "sidrec_layer": (_ADDRESS, _NUMBER, _ADDRESS),
    "sidrec_free": (_ADDRESS,),
    "sidrec_run": (_ADDRESS, *[_NUMBER] * 6, *[_ADDRESS] * 10),
    "sidrec_logprobs": (
        *(_ADDRESS, _ADDRESS, _NUMBER, _NUMBER, _ADDRESS, _ADDRESS),
        *(_ADDRESS, _ADDRESS, _ADDRESS, _NUMBER, _NUMBER),
    ),
}


@cache
def kernels() -> ctypes.CDLL | None:
    """The library, or None where it was not built or is for another processor.

    Its functions let other Python threads run.
    """
    for suffix in EXTENSION_SUFFIXES:
        file = Path(__file__).with_name(f"_kernels{suffix}")
        if file.exists():
            return load(file)
    return None


def load(file: Path) -> ctypes.CDLL | None:
    """The library in a file, or None where it does not run here."""
    try:
        library = ctypes.CDLL(str(file))
    except OSError:  # no OpenMP that fits
        return None
    return _declared(library) if library.sidrec_runs_here() else None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    library.sidrec_lanes.restype = _NUMBER
    library.sidrec_model.argtypes = (*[_NUMBER] * 6, ctypes.c_float, _ADDRESS)
    library.sidrec_model.restype = _ADDRESS
    library.sidrec_likeliest.argtypes = (_ADDRESS, _ADDRESS, _NUMBER, _ADDRESS)
    library.sidrec_likeliest.restype = _NUMBER
    return library
