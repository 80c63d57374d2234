"""The generated shop: reproducible, well formed, and with the habits that a model is to learn."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.build.shop import LONGEST, SHORTEST, Shop, generate_shop, write_shop
from model_store.build.shop_catalogue import make_products
from model_store.build.shop_clicks import EVENT_TYPES, SCENES, Market, Walk
from model_store.build.shop_people import People
from model_store.build.shop_vocabulary import load_vocabulary

Record = dict[str, Any]


@pytest.fixture(scope="module")
def shop() -> Shop:
    return generate_shop(seed=3, n_items=1200, n_users=600)


@pytest.fixture(scope="module")
def items(shop: Shop) -> dict[str, Record]:
    return {str(item["item_id"]): item for item in shop.items}


@pytest.fixture(scope="module")
def sequences(shop: Shop) -> list[list[str]]:
    users: list[Record] = shop.users
    return [user["sequence"] for user in users]


def transitions(sequences: list[list[str]]) -> list[tuple[str, str]]:
    return [pair for sequence in sequences for pair in pairwise(sequence)]


def same_brand_share(pairs: list[tuple[str, str]], items: dict[str, Record]) -> float:
    return float(np.mean([items[a]["brand"] == items[b]["brand"] for a, b in pairs]))


def shuffled(pairs: list[tuple[str, str]], items: dict[str, Record]) -> list[tuple[str, str]]:
    """The same pairs with each second item swapped within its category: chance, all else equal."""
    rng = np.random.default_rng(0)
    by_category: dict[str, list[str]] = {}
    for _, second in pairs:
        by_category.setdefault(items[second]["category"], []).append(second)
    for members in by_category.values():
        rng.shuffle(members)
    return [(first, by_category[items[second]["category"]].pop()) for first, second in pairs]


class TestFiles:
    def test_the_same_seed_writes_the_same_bytes(self, tmp_path: Path) -> None:
        for folder in ("one", "two"):
            write_shop(generate_shop(seed=5, n_items=200, n_users=100), tmp_path / folder)
        for name in ("items.jsonl", "sequences.jsonl"):
            first = (tmp_path / "one" / name).read_bytes()
            assert first == (tmp_path / "two" / name).read_bytes()
            assert b"\\u" not in first

    def test_another_seed_makes_another_shop(self) -> None:
        one = generate_shop(seed=5, n_items=200, n_users=20)
        two = generate_shop(seed=6, n_items=200, n_users=20)
        assert one.items != two.items
        assert one.users != two.users

    def test_lines_hold_the_shop(self, tmp_path: Path) -> None:
        shop = generate_shop(seed=5, n_items=200, n_users=20)
        write_shop(shop, tmp_path)
        for name, records in (("items.jsonl", shop.items), ("sequences.jsonl", shop.users)):
            lines = (tmp_path / name).read_text(encoding="utf-8").splitlines()
            assert [json.loads(line) for line in lines] == records

    def test_the_progress_bar_shows_only_on_request(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        generate_shop(n_items=60, n_users=3)
        assert capsys.readouterr().out == ""
        generate_shop(n_items=60, n_users=3, progress=True)
        assert "Walking" in capsys.readouterr().out


class TestCatalogue:
    def test_counts_and_categories(self, shop: Shop) -> None:
        assert len(shop.items) == 1200
        assert len({item["item_id"] for item in shop.items}) == 1200
        assert len({item["category"] for item in shop.items}) >= 48
        assert len({item["department"] for item in shop.items}) == 10

    def test_titles_are_distinct_and_in_both_languages(self, shop: Shop) -> None:
        titles = [str(item["title"]) for item in shop.items]
        assert all(title.strip() for title in titles)
        assert len(set(titles)) == len(titles)
        languages = Counter(item["lang"] for item in shop.items)
        assert min(languages["zh"], languages["en"]) > 0.4 * len(titles)
        for item in shop.items:
            has_chinese = any("一" <= letter <= "鿿" for letter in str(item["title"]))
            assert has_chinese == (item["lang"] == "zh"), item["title"]

    def test_some_items_differ_in_one_variant_only(self, shop: Shop) -> None:
        stems = Counter(_without_variant(str(item["title"])) for item in shop.items)
        siblings = sum(count - 1 for count in stems.values())
        assert 0.04 < siblings / len(shop.items) < 0.12

    def test_premium_brands_cost_more(self, shop: Shop) -> None:
        tier_of = {brand.name.en: brand.tier for brand in load_vocabulary().brands}
        phones = [item for item in shop.items if item["category"] == "smartphones"]
        means = [
            np.mean([_price(item) for item in phones if tier_of[str(item["brand"])] == tier])
            for tier in range(3)
        ]
        assert means == sorted(means)

    def test_a_catalogue_too_small_for_its_categories_is_refused(self) -> None:
        with pytest.raises(ValueError, match="n_items is 10"):
            generate_shop(n_items=10, n_users=1)

    def test_popularity_counts_the_clicks(self, shop: Shop, items: dict[str, Record]) -> None:
        users: list[Record] = shop.users
        clicks = Counter(
            pair for user in users for pair in zip(user["sequence"], user["scenes"], strict=True)
        )
        for item_id, item in items.items():
            assert item["popularity"] == sum(item["popularity_by_scene"].values())
            assert item["popularity_by_scene"] == {s: clicks[item_id, s] for s in SCENES}


def _without_variant(title: str) -> str:
    return title.rsplit(", ", 1)[0] if ", " in title else title.rsplit(" ", 1)[0]


def _price(item: dict[str, object]) -> float:
    price = item["price"]
    assert isinstance(price, float)
    return price


class TestPeople:
    def test_profiles_hold_declared_values(self, shop: Shop) -> None:
        declared = load_vocabulary().profile_values
        users: list[Record] = shop.users
        for user in users:
            assert list(user["profile"]) == list(declared)
            assert all(value in declared[field] for field, value in user["profile"].items())

    def test_profiles_tell_of_interests(self, shop: Shop, items: dict[str, Record]) -> None:
        def baby_share(children: str) -> float:
            users: list[Record] = shop.users
            clicked = [
                items[item]["department"]
                for user in users
                if user["profile"]["有无子女状况"] == children
                for item in user["sequence"]
            ]
            return clicked.count("baby") / len(clicked)

        assert baby_share("有") > 3 * baby_share("无")


class TestClicks:
    def test_sequences_are_parallel_in_time_order_and_bounded(
        self, shop: Shop, items: dict[str, Record]
    ) -> None:
        users: list[Record] = shop.users
        for user in users:
            length = len(user["sequence"])
            assert SHORTEST <= length <= LONGEST
            assert {len(user[key]) for key in ("types", "scenes", "timestamps")} == {length}
            assert user["timestamps"] == sorted(set(user["timestamps"]))
            assert set(user["types"]) <= set(EVENT_TYPES)
            assert set(user["scenes"]) <= set(SCENES)
            assert set(user["sequence"]) <= set(items)

    def test_lengths_spread_around_sixteen(self, sequences: list[list[str]]) -> None:
        lengths = np.array([len(sequence) for sequence in sequences])
        assert 14 < lengths.mean() < 18
        assert 0.1 < (lengths <= 6).mean() < 0.25

    def test_people_are_loyal_to_brands(
        self, sequences: list[list[str]], items: dict[str, Record]
    ) -> None:
        pairs = transitions(sequences)
        chance = same_brand_share(shuffled(pairs, items), items)
        assert same_brand_share(pairs, items) > 2 * chance

    def test_people_move_on_to_complements(
        self, sequences: list[list[str]], items: dict[str, Record]
    ) -> None:
        complements = {c.slug: set(c.complements) for c in load_vocabulary().categories}
        pairs = [
            (items[a]["category"], items[b]["category"])
            for a, b in transitions(sequences)
            if items[a]["category"] != items[b]["category"]
        ]
        seconds = np.random.default_rng(0).permutation([second for _, second in pairs])
        found = np.mean([second in complements[first] for first, second in pairs])
        by_chance = np.mean(
            [str(s) in complements[first] for (first, _), s in zip(pairs, seconds, strict=True)]
        )
        assert found > 3 * by_chance

    def test_scenes_differ_in_what_is_popular(self, items: dict[str, Record]) -> None:
        top: dict[str, set[str]] = {}
        for scene in SCENES:
            ranked = sorted(items, key=lambda i: -items[i]["popularity_by_scene"][scene])
            top[scene] = set(ranked[:50])
        for one in SCENES:
            for other in SCENES:
                assert one == other or len(top[one] & top[other]) < 35

    def test_promotions_favour_budget_brands(self, items: dict[str, Record]) -> None:
        budget = {brand.name.en for brand in load_vocabulary().brands if brand.tier == 0}

        def budget_share(scene: str) -> float:
            clicks = {i: items[i]["popularity_by_scene"][scene] for i in items}
            cheap = sum(count for i, count in clicks.items() if items[i]["brand"] in budget)
            return float(cheap / sum(clicks.values()))

        assert budget_share("promo") > 1.3 * budget_share("search")


class TestWalk:
    def test_odds_are_open_and_sum_to_one(self) -> None:
        rng = np.random.default_rng(1)
        vocabulary = load_vocabulary()
        market = Market.open(vocabulary, make_products(vocabulary, 120, rng), rng)
        walk = Walk(market, People(vocabulary, rng).draw(), rng)
        for _ in walk.events(12):
            for scene in range(len(SCENES)):
                assert walk.category_odds(scene).sum() == pytest.approx(1.0)
                assert walk.item_odds(7, scene).sum() == pytest.approx(1.0)
