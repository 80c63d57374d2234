"""The semantic ID of an item as text, and as codes.

A SID is a path of codes through the levels of a residual quantizer. In text it is one token per
level, `<a_99><b_225><c_67><d_242>`, sometimes with an *extra* token `<e_0>` that tells colliding
items apart, sometimes between constant tokens (`<|sid_begin|>…<|sid_end|>`). This module turns
whole columns of such texts into code matrices and back; it knows no tokenizer and no item.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model_store.errors import SidError

END = -1
"""Fills a code matrix behind a SID that is shorter than the deepest one."""

Codes = npt.NDArray[np.int32]

LARGEST_CODEBOOK = 2**20
"""Codes of one level at most. Each is a token, so no vocabulary allows more, but a typo may."""

_TOKEN = re.compile(r"<[^<>]+>")
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<code>\d+)(?P<after>\D*)")


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the codebook: `template.format(code)` is the token of a code in 0..size-1."""

    template: str
    size: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^{}]*\{\}[^{}]*", self.template):
            raise SidError(f"{self.template!r} needs one {{}} for the code, and no other braces")
        if not 1 <= self.size <= LARGEST_CODEBOOK:
            raise SidError(
                f"{self.template!r} has a codebook of {self.size}, outside 1..{LARGEST_CODEBOOK}"
            )

    @property
    def name(self) -> str:
        """What people call it: `a` of `<a_{}>`, `s_a` of `<s_a_{}>`."""
        return re.sub(r"\W", "", self.template.split("{}")[0]).strip("_")

    def token(self, code: int) -> str:
        return self.template.format(code)


@dataclass(frozen=True, slots=True)
class SidSpec:
    """How the SIDs of one catalogue are written.

    `levels` are in order; with `extra` the last of them is the disambiguating level, which an
    item may lack. `opening` and `closing` are constant text around the codes: the opening belongs
    to the end of a prompt, and neither is scored.
    """

    levels: tuple[Level, ...]
    extra: bool = False
    opening: str = ""
    closing: str = ""

    @property
    def depth(self) -> int:
        """Number of codes of the longest SID."""
        return len(self.levels)

    def format(self, codes: Iterable[int]) -> str:
        """The text of one SID; `END` codes are left out."""
        tokens = (
            level.token(code) for level, code in zip(self.levels, codes, strict=False) if code >= 0
        )
        return self.opening + "".join(tokens) + self.closing

    def parse(self, sids: Iterable[str] | pa.Array) -> Codes:
        """Codes of a column of SIDs, shape (n, depth), `END` where a SID lacks the extra level.

        Raises `SidError` naming the first SIDs that do not follow this spec or leave a codebook.
        """
        column = sids if isinstance(sids, pa.Array) else pa.array(list(sids), pa.string())
        fields = pc.extract_regex(column, self._pattern())
        if fields.null_count:
            bad = column.filter(fields.is_null())[:3].to_pylist()
            form = self.format([0] * self.depth)
            raise SidError(f"{fields.null_count} SIDs do not have the form {form}, such as {bad}")
        codes = np.full((len(column), self.depth), END, np.int32)
        for i, level in enumerate(self.levels):
            digits = fields.field(i)
            if level is self.levels[-1] and self.extra:
                digits = pc.if_else(pc.equal(digits, ""), str(END), digits)
            codes[:, i] = pc.cast(digits, pa.int32()).to_numpy(zero_copy_only=False)
        self.check(codes)
        return codes

    def texts(self, codes: Codes) -> pa.Array:
        """The SIDs of a code matrix (n, depth), as a string column."""
        parts: list[pa.Array | str] = [self.opening]
        for i, level in enumerate(self.levels):
            tokens = pa.array([*(level.token(code) for code in range(level.size)), ""], pa.string())
            column = codes[:, i]
            parts.append(tokens.take(pa.array(np.where(column < 0, level.size, column))))
        return pc.binary_join_element_wise(*parts, self.closing, "")

    def check(self, codes: Codes) -> None:
        """Raises `SidError` for codes outside the codebooks, or missing where they may not be."""
        for i, level in enumerate(self.levels):
            lowest = END if self.extra and i == self.depth - 1 else 0
            outside = (codes[:, i] >= level.size) | (codes[:, i] < lowest)
            if outside.any():
                worst = int(codes[outside, i][0])
                raise SidError(
                    f"level {i + 1}: {int(outside.sum())} codes lie outside the codebook"
                    f" 0..{level.size - 1}, such as {worst}"
                )

    def _pattern(self) -> str:
        groups = []
        for i, level in enumerate(self.levels):
            before, after = (re.escape(part) for part in level.template.split("{}"))
            group = f"{before}(?P<level{i}>0|[1-9][0-9]{{0,8}}){after}"
            optional = self.extra and i == self.depth - 1
            groups.append(f"(?:{group})?" if optional else group)
        return f"^{re.escape(self.opening)}{''.join(groups)}{re.escape(self.closing)}$"


def infer_spec(sids: Iterable[str] | pa.Array, vocabulary: Iterable[str] = ()) -> SidSpec:
    """The spec that a column of SIDs follows.

    A codebook is as large as the tokens that `vocabulary` (a tokenizer's) has for it, and at
    least as large as the SIDs need. Raises `SidError` where the SIDs have no common form.
    """
    column = sids if isinstance(sids, pa.Array) else pa.array(list(sids), pa.string())
    if len(column) == 0:
        raise SidError("there are no SIDs")
    lengths = pc.count_substring_regex(column, "<[^<>]+>").to_numpy(zero_copy_only=False)
    shortest, longest = (str(column[int(pick(lengths))]) for pick in (np.argmin, np.argmax))
    tokens = _TOKEN.findall(longest)
    if "".join(tokens) != longest or not tokens:
        raise SidError(f"{longest!r} is not a sequence of <…> tokens")
    extra = len(tokens) - len(_TOKEN.findall(shortest))
    if extra > 1:
        raise SidError(f"SIDs differ by more than one token: {shortest!r} and {longest!r}")
    templates, opening, closing = _templates(tokens)
    widest = SidSpec(
        tuple(Level(t, LARGEST_CODEBOOK) for t in templates), bool(extra), opening, closing
    )
    largest = widest.parse(column).max(axis=0)
    known = _codebook_sizes(templates, vocabulary)
    levels = tuple(
        Level(template, max(int(top) + 1, size))
        for template, top, size in zip(templates, largest, known, strict=True)
    )
    return SidSpec(levels, bool(extra), opening, closing)


def _templates(tokens: list[str]) -> tuple[list[str], str, str]:
    """Templates of the numbered tokens, and the constant text before and behind them."""
    numbered = [_NUMBERED.fullmatch(token) for token in tokens]
    places = [i for i, match in enumerate(numbered) if match]
    if not places or places != list(range(places[0], places[-1] + 1)):
        raise SidError(f"{''.join(tokens)!r} has no unbroken run of numbered tokens")
    templates = [m["before"] + "{}" + m["after"] for m in numbered if m]
    if len(set(templates)) != len(templates):
        raise SidError(f"{''.join(tokens)!r} writes two levels the same way")
    return templates, "".join(tokens[: places[0]]), "".join(tokens[places[-1] + 1 :])


def _codebook_sizes(templates: list[str], vocabulary: Iterable[str]) -> list[int]:
    sizes = dict.fromkeys(templates, 0)
    for token in vocabulary:
        match = _NUMBERED.fullmatch(token)
        if match and (template := match["before"] + "{}" + match["after"]) in sizes:
            sizes[template] = max(sizes[template], int(match["code"]) + 1)
    return list(sizes.values())


def level_tokens(
    spec: SidSpec, token_id: Callable[[str], int | None]
) -> list[npt.NDArray[np.int64]]:
    """Per level the vocabulary id of each code, shape (size,); -1 where the vocabulary has none."""
    ids = [[token_id(level.token(code)) for code in range(level.size)] for level in spec.levels]
    return [np.array([-1 if i is None else i for i in row], np.int64) for row in ids]
