"""Walks one person through the demo shop and writes down what they clicked.

A walk is a chain of odds: first the scene, then the category given the scene and what the person
has just done, then the item given the category, the person's brands and the scene's shelf. The odds
are open to callers, so that a model can be held against the best that anyone could know.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from model_store.build.shop_catalogue import Product
from model_store.build.shop_people import FloatArray, Person
from model_store.build.shop_vocabulary import Vocabulary

IntArray = np.ndarray[tuple[int], np.dtype[np.int64]]
FloatTable = np.ndarray[tuple[int, int], np.dtype[np.float64]]

SCENES = ("home", "search", "promo", "cart")  # the first three are where a session can open
CART = SCENES.index("cart")
EVENT_TYPES = ("view", "click", "cart", "purchase")
EVENT_ODDS = np.array([0.34, 0.40, 0.14, 0.12])

NOISE = 0.10
SESSION_END = 0.25
RESTOCK = 0.35  # of sessions, once something was bought that runs out
FOLLOW_UP = 0.25  # of sessions that open with what complements the last one
# Odds of (staying, moving on to a complement, going anywhere) inside a session, by scene.
MOVES = {
    "home": (0.50, 0.34, 0.16),
    "search": (0.60, 0.30, 0.10),
    "promo": (0.40, 0.32, 0.28),
    "cart": (0.10, 0.82, 0.08),
}
SCENE_TIERS = {
    "home": (1.0, 1.0, 1.0),
    "search": (0.8, 1.0, 1.2),
    "promo": (3.5, 1.0, 0.2),
    "cart": (1.3, 1.0, 0.8),
}
COMPLEMENT_FALLOFF = 0.6
POPULARITY_TAIL = 0.65  # Zipf's exponent within a category
SHELF_SPREAD = 0.5  # how far scenes disagree about single items
SEEN_AGAIN = 0.05
RESTOCK_SAME = 0.5

FIRST_DAY = 1_735_689_600  # 2025-01-01 UTC
DAY = 86_400


@dataclass(frozen=True)
class Market:
    """What is the same for everybody: shelves, item appeal by scene, and what goes with what."""

    shelves: tuple[IntArray, ...]  # item numbers of each category
    brand_of: IntArray  # (N,)
    category_of: IntArray  # (N,)
    consumable: np.ndarray[tuple[int], np.dtype[np.bool_]]  # (C,)
    appeal: FloatTable  # (scenes, N)
    goes_with: FloatTable  # (C, C), each row sums to 1

    @classmethod
    def open(
        cls, vocabulary: Vocabulary, products: tuple[Product, ...], rng: np.random.Generator
    ) -> "Market":
        categories = {category.slug: row for row, category in enumerate(vocabulary.categories)}
        brands = {brand: row for row, brand in enumerate(vocabulary.brands)}
        category_of = np.array([categories[product.category.slug] for product in products])
        shelves = tuple(np.flatnonzero(category_of == row) for row in range(len(categories)))
        return cls(
            shelves=shelves,
            brand_of=np.array([brands[product.brand] for product in products]),
            category_of=category_of,
            consumable=np.array([category.consumable for category in vocabulary.categories]),
            appeal=_appeal(shelves, np.array([product.brand.tier for product in products]), rng),
            goes_with=_goes_with(vocabulary, categories),
        )


def _appeal(shelves: tuple[IntArray, ...], tiers: IntArray, rng: np.random.Generator) -> FloatTable:
    appeal = np.zeros(len(tiers))
    for shelf in shelves:
        ranks = rng.permutation(len(shelf)) + 1.0
        appeal[shelf] = ranks**-POPULARITY_TAIL
    taste_of_scene = np.array([SCENE_TIERS[scene] for scene in SCENES])[:, tiers]
    shelf_noise = np.exp(rng.normal(0.0, SHELF_SPREAD, (len(SCENES), len(tiers))))
    return np.asarray(appeal * taste_of_scene * shelf_noise)


def _goes_with(vocabulary: Vocabulary, rows: dict[str, int]) -> FloatTable:
    table = np.zeros((len(rows), len(rows)))
    for category in vocabulary.categories:
        for place, complement in enumerate(category.complements):
            table[rows[category.slug], rows[complement]] = COMPLEMENT_FALLOFF**place
    return np.asarray(table / table.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Event:
    item: int
    type: str
    scene: str
    timestamp: int


class Walk:
    """One person's way through the shop so far, and the odds of the next step."""

    def __init__(self, market: Market, person: Person, rng: np.random.Generator) -> None:
        self._market = market
        self._person = person
        self._rng = rng
        self._category: int | None = None  # where the person stood last
        self._fresh = True  # whether a session begins
        self._last_type = ""
        self._runs_out: list[int] = []  # consumable categories bought from
        self._seen: set[int] = set()
        self._session_scene = 0

    def events(self, length: int) -> Iterator[Event]:
        clock = FIRST_DAY + int(self._rng.integers(90 * DAY))
        for _ in range(length):
            clock += self._pause()
            scene = self.next_scene()
            odds = self.category_odds(scene)
            category = _draw(odds, self._rng)
            shelf_odds = self.item_odds(category, scene)
            item = int(self._market.shelves[category][_draw(shelf_odds, self._rng)])
            event_type = EVENT_TYPES[_draw(EVENT_ODDS, self._rng)]
            yield Event(item, event_type, SCENES[scene], clock)
            self._remember(item, category, event_type)

    def next_scene(self) -> int:
        if self._fresh:
            self._session_scene = _draw(self._person.scene_habit, self._rng)
        elif self._last_type == "cart" and self._rng.random() < 0.75:
            return CART
        return self._session_scene

    def category_odds(self, scene: int) -> FloatArray:
        odds = self._opening_odds() if self._fresh else self._browsing_odds(scene)
        return (1 - NOISE) * odds + NOISE / len(odds)

    def item_odds(self, category: int, scene: int) -> FloatArray:
        """Odds over the shelf of `category`: appeal in the scene, the person's brands, novelty."""
        shelf = self._market.shelves[category]
        weights = self._market.appeal[scene, shelf]
        weights = weights * self._person.brand_pull[self._market.brand_of[shelf]]
        again = RESTOCK_SAME if category in self._runs_out else SEEN_AGAIN
        weights[[item in self._seen for item in shelf.tolist()]] *= again
        return np.asarray(weights / weights.sum())

    def _opening_odds(self) -> FloatArray:
        taste = self._person.category_taste
        if self._category is not None:
            follow_up = self._complement_odds(self._category)
            taste = (1 - FOLLOW_UP) * taste + FOLLOW_UP * follow_up
        if not self._runs_out:
            return taste
        restock = np.bincount(self._runs_out, minlength=len(taste)) / len(self._runs_out)
        return (1 - RESTOCK) * taste + RESTOCK * restock

    def _browsing_odds(self, scene: int) -> FloatArray:
        assert self._category is not None
        stay, move_on, wander = MOVES[SCENES[scene]]
        if self._last_type == "purchase":
            # Nobody goes on looking for what they have just bought.
            stay, move_on = 0.2 * stay, move_on + 0.8 * stay
        odds = move_on * self._complement_odds(self._category)
        odds += wander * self._person.category_taste
        odds[self._category] += stay
        return odds

    def _complement_odds(self, category: int) -> FloatArray:
        """What goes with `category`, bent towards what this person cares for."""
        odds = self._market.goes_with[category] * (0.02 + self._person.category_taste)
        return np.asarray(odds / odds.sum())

    def _pause(self) -> int:
        """Seconds since the last event; also decides whether the session is over."""
        self._fresh = self._category is None or self._rng.random() < SESSION_END
        if self._fresh:
            return DAY // 4 + int(self._rng.exponential(8 * DAY))
        return 15 + int(self._rng.exponential(150))

    def _remember(self, item: int, category: int, event_type: str) -> None:
        self._seen.add(item)
        self._category = category
        self._last_type = event_type
        if event_type == "purchase" and self._market.consumable[category]:
            self._runs_out.append(category)


def _draw(odds: FloatArray, rng: np.random.Generator) -> int:
    """`rng.choice` without its checks, which cost more than the draw does."""
    cumulated = np.cumsum(odds)
    return int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
