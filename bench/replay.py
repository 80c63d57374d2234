"""Replays real users against a running service, and measures how often it is right.

Every user's clicks but the last go in through `POST /v1/events`; then recommendations are asked
for a sample of the users, from the history that the service keeps. Checked: every item is real,
none comes twice, always k of them. Printed: HR@10 over HTTP beside the popularity baseline.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
import typer
from rich.progress import Progress

from bench.report import print_table
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


def replay(
    items: Annotated[Path, typer.Option(help="JSON lines with item_id.")],
    sequences: Annotated[Path, typer.Option(help="JSON lines with user_id and sequence.")],
    url: Annotated[str, typer.Option(help="The service.")] = "http://127.0.0.1:8000",
    users: Annotated[int, typer.Option(min=1, help="Users to ask for.")] = 2000,
    k: Annotated[int, typer.Option(min=1, help="Items of an answer.")] = 10,
    at_once: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 16,
    batch: Annotated[int, typer.Option(min=1, help="Events of a request.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the sample of users.")] = 20,
) -> None:
    """Real users against a running service: how often it is right."""
    catalogue = {row["item_id"] for row in read_json_lines(items)}
    rows = read_json_lines(sequences)
    everyone = [User(r["user_id"], r["sequence"][:-1], r["sequence"][-1]) for r in rows]
    counts = Counter(item for user in everyone for item in user.history)
    popular = [item for item, _ in counts.most_common(10)]
    sample = random.Random(seed).sample(everyone, min(users, len(everyone)))

    async def run() -> tuple[float, int, float, dict[str, Answer]]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            started = time.perf_counter()
            accepted = await send(client, everyone, batch)
            sent = time.perf_counter() - started
            started = time.perf_counter()
            answers = await ask(client, sample, k, at_once)
            return sent, accepted, time.perf_counter() - started, answers

    sent, accepted, asked, answers = asyncio.run(run())
    wrong = faults(answers, catalogue, k)
    model = hit_rate((answers[user.user_id].items, user.target) for user in sample)
    baseline = hit_rate((popular, user.target) for user in sample)
    latencies = sorted(answer.seconds for answer in answers.values())
    sources = dict(Counter(answer.source for answer in answers.values()))
    print_table(
        f"{len(sample):,} users over HTTP, k = {k}",
        ("", ""),
        [
            ["events accepted", f"{accepted:,} in {sent:.1f} s"],
            ["answers by source", str(sources)],
            ["answers per second", f"{len(sample) / asked:.1f} at {at_once} at once"],
            ["median latency", f"{latencies[len(latencies) // 2] * 1e3:.1f} ms"],
            ["HR@10 of the service", f"{model:.4f}"],
            ["HR@10 of popularity", f"{baseline:.4f}"],
            ["ratio", f"{model / baseline:.1f}" if baseline else "popularity hits nothing"],
            ["answers at fault", str(len(wrong))],
        ],
    )
    for line in wrong[:20]:
        print(line, file=sys.stderr)
    if wrong:
        raise typer.Exit(1)
