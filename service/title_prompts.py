"""The prompts of the two title tasks, in the tokens that training used.

A query is a stranger's text inside a prompt. One with tokens of the model is refused: taken for a
title it would find nothing.
"""

from collections.abc import Mapping
from typing import Any, Literal

from model_store.bundle import Bundle
from model_store.prompt import TitleTasks
from service.errors import InvalidInput, NotTrained
from service.smuggled import AddedTokens

Purpose = Literal["search", "describe"]
_TASKS: dict[Purpose, str] = {"search": "title_to_sid", "describe": "sid_to_title"}

LONGEST_TITLE = 96
"""Tokens that a title may take; training knows no longer ones."""


class TitlePrompts:
    """Prompts for one bundle; each method raises `NotTrained` for a task that it did not learn."""

    def __init__(self, bundle: Bundle) -> None:
        self._name = f"bundle {bundle.name} {bundle.version}"
        self._tasks = bundle.manifest.prompt.tasks
        self._mix = _mix(bundle.manifest.training)
        self._opening = bundle.spec.opening
        self._tokenizer = bundle.tokenizer
        self._longest_search = bundle.max_prompt_tokens
        self._added = AddedTokens(self._tokenizer)

    def ask_sid(self, query: str) -> list[int]:
        """Asks for the SID of the item that `query` is the title of, or a part of it.

        Raises `InvalidInput` for a query with tokens of the model in it, and for one too long.
        """
        tasks = self._trained("search")
        tokens, frame = (
            self._encode(tasks.ask_sid(title) + self._opening) for title in (query, "")
        )
        smuggled = self._added.smuggled(tokens, frame)
        if smuggled is not None:
            raise InvalidInput("query", f"contains {smuggled!r}, which is no text to the model")
        if len(tokens) > self._longest_search:
            raise InvalidInput(
                "query",
                f"makes a prompt of {len(tokens)} tokens, at most {self._longest_search} fit",
            )
        return tokens

    def ask_title(self, sid: str) -> list[int]:
        """Asks for the title of the items with this SID."""
        return self._encode(self._trained("describe").ask_title(sid))

    def text(self, tokens: list[int]) -> str:
        """What the model wrote, without any token that is no text."""
        words = [token for token in tokens if token not in self._added]
        return str(self._tokenizer.decode(words)).strip()

    def why_no(self, purpose: Purpose) -> str | None:
        """Why the bundle cannot do this; None where it can."""
        task = _TASKS[purpose]
        if self._tasks is None:
            return f"{self._name} has no prompts for titles, so it cannot {purpose}"
        if self._mix.get(task) == 0:
            return f"{self._name} was not trained on {task}, so it cannot {purpose}"
        return None

    def _trained(self, purpose: Purpose) -> TitleTasks:
        why = self.why_no(purpose)
        if self._tasks is None or why is not None:
            raise NotTrained(why)
        return self._tasks

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids


def _mix(training: Mapping[str, Any]) -> Mapping[str, float]:
    """How often each title task was trained, as a build writes it down; empty where the model
    came from elsewhere, and its prompts alone say what it can do."""
    train = training.get("train")
    mix = train.get("mix") if isinstance(train, dict) else None
    return mix if isinstance(mix, dict) else {}
