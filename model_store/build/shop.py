"""The generated demo shop: the data that the shipped demo model is trained on.

Real shops' logs cannot be shipped, so this one is invented: a bilingual catalogue, people with
Chinese profiles, and clicks that follow brands, complements, price and habit. A model has something
to learn that counting neighbours does not find: a person's own traits, across categories.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from model_store.build.shop_catalogue import item_id, item_record, make_products
from model_store.build.shop_clicks import SCENES, Event, Market, Walk
from model_store.build.shop_people import People
from model_store.build.shop_vocabulary import load_vocabulary

SHORTEST, LONGEST = 4, 40
NEWCOMER_SHARE = 0.15  # people of whom next to nothing is known


@dataclass(frozen=True)
class Shop:
    """Items and users as plain records, ready to be written as JSON lines."""

    items: list[dict[str, object]]
    users: list[dict[str, object]]


def generate_shop(
    seed: int = 20, n_items: int = 2600, n_users: int = 6000, *, progress: bool = False
) -> Shop:
    """The same arguments give the same shop."""
    catalogue_rng, market_rng, people_rng, walk_rng = np.random.default_rng(seed).spawn(4)
    vocabulary = load_vocabulary()
    products = make_products(vocabulary, n_items, catalogue_rng)
    market = Market.open(vocabulary, products, market_rng)
    people = People(vocabulary, people_rng)
    clicks = Counter[tuple[int, str]]()
    users = []
    for number in track(range(n_users), "Walking through the shop", disable=not progress):
        person = people.draw()
        events = list(Walk(market, person, walk_rng).events(_length(walk_rng)))
        clicks.update((event.item, event.scene) for event in events)
        users.append(_user_record(number, person.profile, events))
    items = [
        item_record(number, product) | _popularity(number, clicks)
        for number, product in enumerate(products)
    ]
    return Shop(items, users)


def write_shop(shop: Shop, folder: Path) -> None:
    """Writes `items.jsonl` and `sequences.jsonl`; the same shop gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_lines(shop.items, folder / "items.jsonl")
    _write_lines(shop.users, folder / "sequences.jsonl")


def _length(rng: np.random.Generator) -> int:
    if rng.random() < NEWCOMER_SHARE:
        return int(rng.integers(SHORTEST, SHORTEST + 3))
    return int(np.clip(round(rng.lognormal(2.8, 0.45)), SHORTEST, LONGEST))


def _user_record(number: int, profile: dict[str, str], events: list[Event]) -> dict[str, object]:
    return {
        "user_id": f"u{number:05d}",
        "profile": profile,
        "sequence": [item_id(event.item) for event in events],
        "types": [event.type for event in events],
        "scenes": [event.scene for event in events],
        "timestamps": [event.timestamp for event in events],
    }


def _popularity(number: int, clicks: Counter[tuple[int, str]]) -> dict[str, object]:
    by_scene = {scene: clicks[number, scene] for scene in SCENES}
    return {"popularity": sum(by_scene.values()), "popularity_by_scene": by_scene}


def _write_lines(records: Iterable[dict[str, object]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        for record in records:
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
