"""Matrices that rows are multiplied with, in the form that suits the device."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from service.engine.torch.weights import Affine

_TINY = 1e-12


class Linear(Protocol):
    """A matrix (out, in), perhaps with a bias, applied to rows (n, in)."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """residual (n, out) + the product of x (n, in)."""
        ...


def linear_of(affine: Affine, dtype: torch.dtype) -> Linear:
    """In the form that suits the device of the matrix; `dtype` may be int8 on a CPU."""
    if dtype == torch.int8:
        return Int8(affine.weight, affine.bias)
    weight = affine.weight.to(dtype)
    bias = None if affine.bias is None else affine.bias.to(dtype)
    packs = weight.device.type == "cpu" and weight.dtype == torch.float32
    return Packed(weight, bias) if packs else Plain(weight, bias)


class Plain:
    """As torch has it, on any device and in any type."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self._weight, self._bias)

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return residual + self(x)


class Packed:
    """On a CPU in fp32: packed once into oneDNN's layout, the operator that torch's own compiler
    emits for it. The same products, without arranging the matrix at every call."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            _padded(x), self._weight, self._bias, "none", [], ""
        )
        return result[: len(x)]

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            _padded(x), _padded(residual), self._weight, self._bias, "add"
        )
        return result[: len(x)]


class Int8:
    """On a CPU: weights of 8 bits with a scale for each output, inputs of 8 bits with one for each
    row (LLM.int8, Dettmers et al., 2022, without its exact columns). Sums are exact."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._scale = weight.abs().amax(dim=1).clamp_(min=_TINY) / 127
        quantized = (weight / self._scale[:, None]).round_().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(quantized, None)
        self._zero = torch.zeros(len(weight), dtype=torch.long)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        rows, x = len(x), _padded(x)
        size = x.abs().amax(dim=1, keepdim=True).clamp_(min=_TINY)
        # The operator knows one scale for all rows, so they are brought to the same size.
        quantized = (x * (127 / size)).round_().add_(128).to(torch.uint8)
        result: Tensor = torch.ops.onednn.qlinear_pointwise(
            *(quantized, 1 / 127, 128, self._weight, self._scale, self._zero, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        result = result.mul_(size)[:rows]
        return result if self._bias is None else result.add_(self._bias)

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return self(x).add_(residual)


def rounded(rows: int) -> int:
    """The next of eight numbers between two powers of two: an eighth more at most."""
    step = 1 << max(0, rows.bit_length() - 4)
    return -(-rows // step) * step


def _padded(x: Tensor) -> Tensor:
    """With rows of zeros up to a number that comes often: oneDNN makes a program for each number of
    rows that it sees, and keeps it."""
    more = rounded(len(x)) - len(x)
    return pad(x, (0, 0, 0, more)) if more else x
