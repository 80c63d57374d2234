"""What a soak has shown, beside what docs/reliability.md promises."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from bench.soak_load import Account, Response
from bench.soak_world import Outage, Sample, World
from bench.swapped import active

_WELL_S = 10.0
"""After the end of a fault everything is well again."""
_FLAT = 0.03
_FILES = 2
_MINUTE_S = 60.0
"""What is compared are medians of minutes: swaps come and go within one."""

_ALWAYS = {
    "user": "model",
    "writer": "model",
    "carried": "model",
    "filter": "model",
    "similar": "model",
    "found": "model",
    "batch": "model",
    "cold": "no_history",
    "events": "acknowledged",
    "items": "acknowledged",
}
"""How each kind is answered, with 200, whenever Redis is there."""

_AWAY = {
    "user": (200, "history_unavailable"),
    "writer": (200, "history_unavailable"),
    "filter": (200, "history_unavailable"),
    "batch": (200, "history_unavailable"),
    "cold": (200, "history_unavailable"),
    "events": (503, "history-unavailable"),
    "items": (503, "catalogue-unavailable"),
}
"""What else is promised while Redis is away; how it is refused, with Retry-After."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The figures, those of each minute, and a line for each promise that was broken."""

    row: dict[str, Any]
    minutes: list[dict[str, Any]]
    broken: list[str]


def judge(account: Account, world: World, settled: float, unready: Sequence[str]) -> Judged:
    """`settled` is the moment from which on memory and files must be flat; where fewer than two
    minutes follow, they are not judged."""
    broken = [*world.failed, *unpromised(account.responses, world.outages)]
    broken += [
        refused.why
        for refused in world.refused
        if not _away(refused.began, refused.ended, world.outages)
    ]
    broken += unready
    broken += account.wrong
    broken += [f"{event} was acknowledged and is lost" for event in account.lost]
    broken += _of_no_version(account.responses, world)
    minutes = by_minute(world.samples, settled)
    row = _row(account, world)
    row |= {"rss_mb": None, "rss_growth": None, "rss_last": None, "files": None, "to_redis": None}
    if len(minutes) > 1:
        rss = np.array([minute["rss_mb"] for minute in minutes])
        files = [minute["own_files"] for minute in minutes]
        to_redis = [minute["to_redis"] for minute in minutes]
        growth = rss / rss[0] - 1
        row |= {
            "rss_mb": rss[0],
            "rss_growth": float(growth.max()),
            "rss_last": float(growth[-1]),
            "files": [files[0], files[-1]],
            "to_redis": [to_redis[0], max(to_redis)],
        }
        if growth.max() > _FLAT:
            broken.append(f"memory grew by {growth.max():.1%}")
        if max(files) > files[0] + _FILES:
            broken.append(f"open files went from {files[0]} to {max(files)}")
    return Judged(row | {"broken": len(broken)}, minutes, broken)


def unpromised(responses: Sequence[Response], outages: Sequence[Outage]) -> list[str]:
    """Responses that nothing promises; one line for each kind of them."""
    found: dict[str, list[float]] = defaultdict(list)
    start = min((response.due for response in responses), default=0.0)
    for response in responses:
        if (response.status, response.how) == (200, _ALWAYS[response.kind]):
            continue
        away = _away(response.due, response.there, outages)
        if not away or (response.status, response.how) != _AWAY.get(response.kind):
            when = "while Redis was away" if away else "with Redis there"
            line = f"{response.kind}: {response.status} {response.how}, {when}"
            found[line].append(response.due - start)
    return [
        f"{len(at)} times {line}, from {min(at):.1f} s to {max(at):.1f} s"
        for line, at in sorted(found.items(), key=lambda one: -len(one[1]))
    ]


def _away(began: float, ended: float, outages: Sequence[Outage]) -> bool:
    """Whether Redis was away at any moment between these, or had been until just before."""
    return any(one.began <= ended and began <= one.ended + _WELL_S for one in outages)


def by_minute(samples: Sequence[Sample], settled: float) -> list[dict[str, Any]]:
    """Medians of whole minutes from `settled` on; `own_files` are those that are no connections."""
    found: list[dict[str, Any]] = []
    last = max((sample.at for sample in samples), default=settled)
    for start in np.arange(settled, last - 0.9 * _MINUTE_S, _MINUTE_S):
        those = [sample for sample in samples if start <= sample.at < start + _MINUTE_S]
        redis = [sample.redis for sample in those if sample.redis is not None]
        found.append(
            {
                "rss_mb": float(np.median([sample.rss for sample in those])) / 2**20,
                "pss_mb": float(np.median([sample.pss for sample in those])) / 2**20,
                "files": int(np.median([sample.files for sample in those])),
                "own_files": int(np.median([sample.own for sample in those])),
                "to_redis": int(np.median([sample.unix for sample in those])),
                "threads": int(np.median([sample.threads for sample in those])),
                "redis_mb": float(np.median(redis)) / 2**20 if redis else None,
            }
        )
    return found


def _row(account: Account, world: World) -> dict[str, Any]:
    responses = account.responses
    seconds = [response.there - response.due for response in responses]
    outcomes = Counter(f"{one.status} {one.how}" for one in responses)
    killed = sum(outage.killed for outage in world.outages)
    return {
        "requests": len(responses),
        "outcomes": dict(outcomes.most_common()),
        "kinds": dict(Counter(response.kind for response in responses).most_common()),
        **{f"p{q}_ms": float(np.percentile(seconds, q)) * 1e3 for q in (50, 99, 99.9)},
        "swaps": len(world.swaps),
        "swaps_refused": len(world.refused),
        "killed": killed,
        "shut_down": len(world.outages) - killed,
        "well_after_s": _well_after(responses, world.outages),
        "acknowledged": account.acknowledged,
        "lost": len(account.lost),
        "written": account.written,
        "deleted": account.deleted,
        "found": account.found,
        "latest_send_ms": account.lag_s * 1e3,
        "load_cpu_s": account.cpu_s,
    }


def _well_after(responses: Sequence[Response], outages: Sequence[Outage]) -> float:
    """Seconds after Redis was back until the last request was sent that did not notice."""
    late = [0.0]
    for outage, then in zip_longest(outages, outages[1:]):
        end = outage.ended + _WELL_S if then is None else then.began
        late += [
            response.due - outage.ended
            for response in responses
            if outage.ended <= response.due
            and response.there < end
            and (response.status, response.how) == _AWAY.get(response.kind)
        ]
    return max(late)


def _of_no_version(responses: Sequence[Response], world: World) -> list[str]:
    """Answers that name a version which was not active while they were made."""
    times = active(world.swaps)
    wrong = sum(
        not any(begin <= one.there and one.due <= end for begin, end in times[one.version])
        for one in responses
        if one.version
    )
    return [f"{wrong} answers name a version that was not active"] if wrong else []
