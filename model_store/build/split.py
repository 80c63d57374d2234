"""What is learnt from, and what is asked afterwards.

users            the last event of a random share of the users, who are not learnt from at all
leave-one-out    the last event of every user is the test, the one before it validation
chronological    by time over all users: what happened last is the test, what before it validation
files            as the files say (see `ingest`)
"""

from dataclasses import replace

import numpy as np

from model_store.build.config import Split as SplitConfig
from model_store.build.dataset import UserSequence
from model_store.build.evaluate import Case, Split
from model_store.build.log import Log
from model_store.errors import BuildError


def split(log: Log, config: SplitConfig, seed: int) -> Split:
    """Raises `BuildError` where the log cannot be split so."""
    if config.kind == "chronological":
        return _chronological(log, config)
    sequences = [_sequence(log, user_id, place) for user_id, place in log.users()]
    if config.kind == "leave-one-out":
        usable = [s for s in sequences if len(s.items) > 2]
        return Split(
            [_until(s, -2) for s in usable], *([_case(s, i) for s in usable] for i in (-2, -1))
        )
    usable = [s for s in sequences if len(s.items) > 1]
    drawn = np.random.default_rng(seed).random(len(usable))
    edge = config.share + config.valid_share
    return Split(
        [s for s, r in zip(usable, drawn, strict=True) if r >= edge],
        [_case(s, -1) for s, r in zip(usable, drawn, strict=True) if config.share <= r < edge],
        [_case(s, -1) for s, r in zip(usable, drawn, strict=True) if r < config.share],
    )


def shortest(config: SplitConfig) -> int:
    """Events that a user needs to be of use."""
    return {"leave-one-out": 3, "users": 2}.get(config.kind, 1)


def _chronological(log: Log, config: SplitConfig) -> Split:
    """Each event after a boundary is a case, with everything that its user did before it."""
    if log.time is None:
        raise BuildError("a chronological split needs timestamps")
    shares = [1 - config.share - config.valid_share, 1 - config.share]
    valid_from, test_from = np.quantile(log.time, shares, method="higher")
    found = Split([], [], [])
    for user_id, place in log.users():
        sequence, times = _sequence(log, user_id, place), log.time[place]
        seen = int((times < valid_from).sum())
        if seen:
            found.learn.append(_until(sequence, seen))
        for i in range(max(seen, 1), len(times)):
            (found.test if times[i] >= test_from else found.valid).append(_case(sequence, i))
    return found


def _sequence(log: Log, user_id: str, place: slice) -> UserSequence:
    return UserSequence(
        user_id,
        tuple(log.item[place].tolist()),
        log.profiles.get(user_id, {}),
        scenes=() if log.scene is None else tuple(log.scene[place]),
    )


def _until(sequence: UserSequence, end: int) -> UserSequence:
    items, scenes = sequence.items[:end], sequence.scenes[:end]
    return UserSequence(sequence.user_id, items, sequence.profile, sequence.scene, scenes)


def _case(sequence: UserSequence, target: int) -> Case:
    """The event at `target` is asked for, in the scene in which it happened."""
    history = replace(_until(sequence, target), scene=sequence.scene_at(target))
    return Case(history, sequence.items[target])
