"""Replays real users against a running service, and measures how often it is right.

Every user's clicks but the last go in through `POST /v1/events`; then recommendations are asked
for a sample of the users, from the history that the service keeps. Checked: every item is real,
none comes twice, always k of them. Printed: HR@10 over HTTP beside the popularity baseline.

    python -m bench.replay --items ITEMS.jsonl.gz --sequences SEQUENCES.jsonl.gz
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from model_store.catalogue import read_json_lines

T = TypeVar("T")

START = 1_700_000_000
"""The data has an order but no clock: the first click of every user gets this Unix time."""


@dataclass(frozen=True, slots=True)
class User:
    user_id: str
    history: list[str]
    target: str


@dataclass(frozen=True, slots=True)
class Answer:
    items: list[str]
    source: str
    seconds: float


def events(users: Iterable[User]) -> list[dict[str, Any]]:
    return [
        {
            "event_id": f"{user.user_id}-{i}",
            "user_id": user.user_id,
            "item_id": item,
            "type": "purchase",
            "timestamp": START + 60 * i,
        }
        for user in users
        for i, item in enumerate(user.history)
    ]


async def every(
    work: Sequence[T], do: Callable[[T], Awaitable[None]], *, at_once: int, title: str
) -> None:
    """Does all of `work`, `at_once` at a time, behind a progress bar."""
    left = iter(work)
    with Progress() as progress:
        bar = progress.add_task(title, total=len(work))

        async def worker() -> None:
            for one in left:
                await do(one)
                progress.advance(bar)

        await asyncio.gather(*(worker() for _ in range(at_once)))


async def send(client: httpx.AsyncClient, users: Sequence[User], batch: int) -> int:
    """Sends the events of all users; returns how many the service says were new."""
    everything, accepted = events(users), 0
    batches = [everything[i : i + batch] for i in range(0, len(everything), batch)]

    async def one(events: list[dict[str, Any]]) -> None:
        nonlocal accepted
        answer = await client.post("/v1/events", json={"events": events})
        answer.raise_for_status()
        accepted += answer.json()["accepted"]

    await every(batches, one, at_once=4, title=f"{len(everything):,} events")
    return accepted


async def ask(
    client: httpx.AsyncClient, users: Sequence[User], k: int, at_once: int
) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}

    async def one(user: User) -> None:
        started = time.perf_counter()
        answer = await client.post("/v1/recommendations", json={"user_id": user.user_id, "k": k})
        answer.raise_for_status()
        body = answer.json()
        items = [item["item_id"] for item in body["items"]]
        answers[user.user_id] = Answer(items, body["source"], time.perf_counter() - started)

    await every(users, one, at_once=at_once, title=f"{len(users):,} recommendations")
    return answers


def faults(answers: dict[str, Answer], catalogue: set[str], k: int) -> list[str]:
    """What is wrong with the answers, one line each."""
    found = []
    for user, answer in answers.items():
        if len(answer.items) != k:
            found.append(f"user {user}: {len(answer.items)} items instead of {k}")
        if len(set(answer.items)) != len(answer.items):
            found.append(f"user {user}: an item twice")
        if unreal := set(answer.items) - catalogue:
            found.append(f"user {user}: not in the catalogue: {sorted(unreal)}")
    return found


def hit_rate(lists: Iterable[tuple[Sequence[str], str]]) -> float:
    hits = [target in items[:10] for items, target in lists]
    return sum(hits) / len(hits)


async def replay(options: argparse.Namespace) -> int:
    catalogue = {row["item_id"] for row in read_json_lines(options.items)}
    rows = read_json_lines(options.sequences)
    users = [User(r["user_id"], r["sequence"][:-1], r["sequence"][-1]) for r in rows]
    counts = Counter(item for user in users for item in user.history)
    popular = [item for item, _ in counts.most_common(10)]
    sample = random.Random(options.seed).sample(users, min(options.users, len(users)))
    async with httpx.AsyncClient(base_url=options.url, timeout=60) as client:
        started = time.perf_counter()
        accepted = await send(client, users, options.batch)
        sent = time.perf_counter() - started
        started = time.perf_counter()
        answers = await ask(client, sample, options.k, options.at_once)
        asked = time.perf_counter() - started
    wrong = faults(answers, catalogue, options.k)
    model = hit_rate((answers[user.user_id].items, user.target) for user in sample)
    baseline = hit_rate((popular, user.target) for user in sample)
    latencies = sorted(answer.seconds for answer in answers.values())

    table = Table(title=f"{len(sample):,} users over HTTP, k = {options.k}", show_header=False)
    table.add_row("events accepted", f"{accepted:,} in {sent:.1f} s")
    table.add_row("answers by source", str(dict(Counter(a.source for a in answers.values()))))
    table.add_row("answers per second", f"{len(sample) / asked:.1f} at {options.at_once} at once")
    table.add_row("median latency", f"{latencies[len(latencies) // 2] * 1e3:.1f} ms")
    table.add_row("HR@10 of the service", f"{model:.4f}")
    table.add_row("HR@10 of popularity", f"{baseline:.4f}")
    table.add_row("ratio", f"{model / baseline:.1f}" if baseline else "popularity hits nothing")
    table.add_row("answers at fault", str(len(wrong)))
    Console().print(table)
    for line in wrong[:20]:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--sequences", type=Path, required=True)
    parser.add_argument("--users", type=int, default=2000, help="users to ask for")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1000, help="events per request")
    parser.add_argument("--seed", type=int, default=20)
    return asyncio.run(replay(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
