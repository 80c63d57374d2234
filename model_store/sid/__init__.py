"""Semantic IDs: their text form, their prefix trie, and which items an answer may contain."""

from model_store.sid.eligibility import Eligibility, EligibilityBatch
from model_store.sid.spec import END, Codes, Level, SidSpec, infer_spec, level_tokens
from model_store.sid.trie import Children, Trie, sort_order

__all__ = [
    "END",
    "Children",
    "Codes",
    "Eligibility",
    "EligibilityBatch",
    "Level",
    "SidSpec",
    "Trie",
    "infer_spec",
    "level_tokens",
    "sort_order",
]
