"""Draws the demo shop's catalogue: products, and variants of products that differ in one word."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from model_store.build.shop_vocabulary import Brand, Category, Phrase, Variant, Vocabulary

T = TypeVar("T")

VARIANT_SHARE = 0.08
CHINESE_SHARE = 0.5
TIER_PRICE = (0.55, 1.0, 2.1)  # budget, mid, premium
_ATTEMPTS = 200


@dataclass(frozen=True)
class Product:
    """Everything a title is made of; two variants of one product differ in `variant` alone."""

    category: Category
    brand: Brand
    line: Phrase
    noun: Phrase
    feature: Phrase
    spec: Phrase
    variant: Variant
    lang: str
    plain_price: float

    @property
    def price(self) -> float:
        # Shops end their prices on a nine.
        return round(self.plain_price * self.variant.price_factor) + 0.9

    @property
    def title(self) -> str:
        brand, line, noun, feature, spec, variant = (
            phrase.say(self.lang)
            for phrase in (
                self.brand.name,
                self.line,
                self.noun,
                self.feature,
                self.spec,
                self.variant,
            )
        )
        if self.lang == "zh":
            return f"{brand} {line} {feature}{noun} {spec} {variant}"
        return f"{brand} {line} {feature} {noun}, {spec}, {variant}"


def make_products(
    vocabulary: Vocabulary, n_items: int, rng: np.random.Generator
) -> tuple[Product, ...]:
    """`n_items` products with distinct titles, at least one in each category."""
    maker = _Maker(vocabulary, rng)
    counts = _items_per_category(len(vocabulary.categories), n_items, rng)
    products: list[Product] = []
    for category, count in zip(vocabulary.categories, counts, strict=True):
        products += maker.make_category(category, int(count))
    # Neighbouring ids must not give the category away.
    order = rng.permutation(len(products))
    return tuple(products[position] for position in order)


def item_record(number: int, product: Product) -> dict[str, object]:
    return {
        "item_id": item_id(number),
        "title": product.title,
        "brand": product.brand.name.en,
        "category": product.category.slug,
        "department": product.category.department,
        "price": product.price,
        "lang": product.lang,
    }


def item_id(number: int) -> str:
    return f"p{number:05d}"


def _items_per_category(
    n_categories: int, n_items: int, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if n_items < n_categories:
        raise ValueError(f"n_items is {n_items}, but there are {n_categories} categories to stock")
    shares = rng.dirichlet(np.full(n_categories, 20.0))
    return 1 + rng.multinomial(n_items - n_categories, shares)


class _Maker:
    """Draws products and remembers the titles already given out."""

    def __init__(self, vocabulary: Vocabulary, rng: np.random.Generator) -> None:
        self._departments = {department.slug: department for department in vocabulary.departments}
        self._rng = rng
        self._titles: set[str] = set()

    def make_category(self, category: Category, count: int) -> list[Product]:
        products: list[Product] = []
        for _ in range(count):
            as_variant = bool(products) and self._rng.random() < VARIANT_SHARE
            products.append(self._distinct(category, products[-1] if as_variant else None))
        return products

    def _distinct(self, category: Category, sibling: Product | None) -> Product:
        for attempt in range(_ATTEMPTS):
            # A product whose variants are used up gets no sibling but a new neighbour.
            if sibling is not None and attempt < _ATTEMPTS // 2:
                product = replace(sibling, variant=self._pick(category.variants))
            else:
                product = self._new(category)
            if product.title not in self._titles:
                self._titles.add(product.title)
                return product
        raise ValueError(f"{category.slug}: the vocabulary has too few words for more titles")

    def _new(self, category: Category) -> Product:
        department = self._departments[category.department]
        brand = self._pick(department.brands)
        return Product(
            category=category,
            brand=brand,
            line=self._pick(department.lines),
            noun=self._pick(category.nouns),
            feature=self._pick(category.features),
            spec=self._pick(category.specs),
            variant=self._pick(category.variants),
            lang="zh" if self._rng.random() < CHINESE_SHARE else "en",
            plain_price=self._plain_price(category, brand),
        )

    def _plain_price(self, category: Category, brand: Brand) -> float:
        spread = float(np.exp(self._rng.normal(0.0, 0.2)))
        return category.price * TIER_PRICE[brand.tier] * spread

    def _pick(self, options: Sequence[T]) -> T:
        return options[int(self._rng.integers(len(options)))]
