"""Asks a running service and checks its answers against raw data files alone.

    python -m tests.check_eligibility http://127.0.0.1:8000 ../shared/data/beauty --users 2000

It imports nothing of sidrec: what an item is and what a user has seen it reads from
`items.jsonl.gz` and `sequences.jsonl.gz`, as JSON lines.
"""

import argparse
import gzip
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import httpx

K = 10
FEW = 12


class Client(Protocol):
    """What both httpx and a test client of the application are."""

    def post(self, url: str, *, json: Any) -> Any: ...


class WrongAnswer(Exception):
    """What was asked, and what is wrong with the answer."""


def check(client: Client, data: Path, users: int, *, seed: int = 0) -> None:
    """Sends the events of `users` users, then asks for each. Raises `WrongAnswer`.

    Ten items each, none of them seen; then, with twelve items left of which none was seen, and
    k = 20, exactly those twelve.
    """
    items = {line["item_id"] for line in _lines(data / "items.jsonl.gz")}
    sequences = {line["user_id"]: line["sequence"] for line in _lines(data / "sequences.jsonl.gz")}
    rng = random.Random(seed)
    chosen = rng.sample(sorted(sequences), users)
    for user in chosen:
        _send(client, user, sequences[user])
    for user in chosen:
        seen = set(sequences[user])
        asked: dict[str, Any] = {"user_id": user, "k": K, "exclude_seen": "history"}
        found = _ask(client, asked, items)
        if len(found) != K or found & seen:
            raise WrongAnswer(f"{asked}: {len(found)} items, {found & seen} were seen")
        unseen = rng.sample(sorted(items - seen), FEW)
        # Some that were seen are let through by the filter, and must fall to `exclude_seen`.
        listed = [*unseen, *rng.sample(sorted(seen), min(3, len(seen)))]
        asked |= {"k": 20, "filter": {"item_id": {"in": listed}}}
        found = _ask(client, asked, items, eligible=FEW)
        if found != set(unseen):
            raise WrongAnswer(f"{asked}: {sorted(found)} instead of {sorted(unseen)}")


def _send(client: Client, user: str, sequence: list[str]) -> None:
    events = [
        {
            "event_id": str(place),
            "user_id": user,
            "item_id": item,
            "type": "purchase",
            "timestamp": 1_400_000_000 + place,
        }
        for place, item in enumerate(sequence)
    ]
    response = client.post("/v1/events", json=events)
    if response.status_code != 200:
        raise WrongAnswer(f"events of {user}: {response.text}")


def _ask(
    client: Client, asked: dict[str, Any], items: set[str], eligible: int | None = None
) -> set[str]:
    """The items of an answer that a model gave, each once."""
    response = client.post("/v1/recommendations", json=asked)
    if response.status_code != 200:
        raise WrongAnswer(f"{asked}: {response.text}")
    answer = response.json()
    found = [item["item_id"] for item in answer["items"]]
    if answer["source"] != "model" or len(set(found)) < len(found) or not set(found) <= items:
        raise WrongAnswer(f"{asked}: {answer}")
    if eligible is not None and answer["eligible_items"] != eligible:
        raise WrongAnswer(f"{asked}: {answer['eligible_items']} eligible instead of {eligible}")
    return set(found)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="of the service, which serves the data's catalogue")
    parser.add_argument("data", type=Path, help="folder of items.jsonl.gz and sequences.jsonl.gz")
    parser.add_argument("--users", type=int, default=2000)
    options = parser.parse_args()
    started = time.perf_counter()
    with httpx.Client(base_url=options.url, timeout=30) as client:
        check(client, options.data, options.users)
    print(f"{options.users} users: all right, in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
