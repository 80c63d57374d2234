"""The mixture of tasks: what an epoch of training sees, and the same as text for other trainers."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from model_store.build.dataset import (
    Encoder,
    Example,
    UserSequence,
    cuts,
    epoch,
    fragment,
    titled_rows,
)
from model_store.build.files import write_rows
from model_store.build.train import Schedule


def mixture(
    users: Sequence[UserSequence], encoder: Encoder, schedule: Schedule
) -> Callable[[np.random.Generator], list[Example]]:
    """Draws the examples of an epoch: one of each user, and their share of the title tasks."""

    def part_of(row: int, rng: np.random.Generator) -> str | None:
        if not schedule.mix.fragments or rng.random() >= schedule.mix.fragments:
            return None
        return fragment(encoder.titles[row] or "", rng)

    def draw(rng: np.random.Generator) -> list[Example]:
        examples = epoch(
            users,
            encoder,
            rng,
            max_history=schedule.max_history,
            last_share=schedule.last_share,
            cold_share=schedule.cold_share,
            blind_share=schedule.blind_share,
            history_labels=schedule.history_labels,
        )
        asked = len(examples)
        mix = schedule.mix
        titles = titled_rows(encoder, rng, round(asked * mix.sid_to_title))
        sids = titled_rows(encoder, rng, round(asked * mix.title_to_sid))
        examples += [encoder.title_of(row) for row in titles]
        return examples + [encoder.sid_of(row, part_of(row, rng)) for row in sids]

    return draw


def export(
    users: Sequence[UserSequence], encoder: Encoder, schedule: Schedule, folder: Path
) -> None:
    """Writes one draw of each task in use as `instruction` and `response`, one JSON line each."""
    rng = np.random.default_rng(schedule.seed)
    chosen = list(cuts(users, rng, last_share=schedule.last_share, cold_share=schedule.cold_share))
    write_rows(_next_items(chosen, encoder, schedule), folder / "next_item.jsonl")
    tasks = encoder.template.tasks
    if tasks is None:
        return
    if schedule.mix.sid_to_title:
        rows = titled_rows(encoder, rng, round(len(chosen) * schedule.mix.sid_to_title))
        pairs = ((tasks.ask_title(encoder.sids[r]), encoder.titles[r]) for r in rows)
        write_rows(map(_line, pairs), folder / "sid_to_title.jsonl")
    if schedule.mix.title_to_sid:
        rows = titled_rows(encoder, rng, round(len(chosen) * schedule.mix.title_to_sid))
        pairs = ((tasks.ask_sid(encoder.titles[r] or ""), encoder.sids[r]) for r in rows)
        write_rows(map(_line, pairs), folder / "title_to_sid.jsonl")


def _next_items(
    chosen: Sequence[tuple[UserSequence, int]], encoder: Encoder, schedule: Schedule
) -> Iterator[dict[str, str | None]]:
    for user, cut in chosen:
        history = user.items[max(0, cut - schedule.max_history) : cut]
        scene = user.scene_at(cut)
        sids = [encoder.sids[row] for row in history]
        prompt = encoder.template.render(sids, user.profile, scene)
        yield _line((prompt, encoder.sids[user.items[cut]]))


def _line(pair: tuple[str, str | None]) -> dict[str, str | None]:
    return {"instruction": pair[0], "response": pair[1]}
