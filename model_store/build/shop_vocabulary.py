"""The words and odds that the demo shop is drawn from, read from `data/shop.toml`.

Holds no randomness: the file is data for people to edit, and this module turns it into typed,
checked records, so that a misspelt complement fails at once and not as a quiet hole in the clicks.
"""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

TIERS = ("budget", "mid", "premium")
UNKNOWN = "未知"


@dataclass(frozen=True)
class Phrase:
    """One thing said in both languages of the shop."""

    zh: str
    en: str

    def say(self, lang: str) -> str:
        return self.zh if lang == "zh" else self.en


@dataclass(frozen=True)
class Variant(Phrase):
    price_factor: float = 1.0  # against the plain product: six socks cost more than one


@dataclass(frozen=True)
class Brand:
    name: Phrase
    department: str
    tier: int  # index into TIERS


@dataclass(frozen=True)
class Category:
    slug: str
    department: str
    price: float
    consumable: bool
    nouns: tuple[Phrase, ...]
    features: tuple[Phrase, ...]
    specs: tuple[Phrase, ...]
    variants: tuple[Variant, ...]
    complements: tuple[str, ...]


@dataclass(frozen=True)
class Department:
    slug: str
    brands: tuple[Brand, ...]
    lines: tuple[Phrase, ...]


@dataclass(frozen=True)
class Persona:
    """A kind of shopper: never written to the data, felt in profiles and clicks."""

    name: str
    share: float
    interests: dict[str, float]
    tiers: tuple[float, ...]
    profile: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Vocabulary:
    departments: tuple[Department, ...]
    categories: tuple[Category, ...]
    personas: tuple[Persona, ...]
    profile_values: dict[str, list[str]]

    @property
    def brands(self) -> tuple[Brand, ...]:
        return tuple(brand for department in self.departments for brand in department.brands)


def load_vocabulary() -> Vocabulary:
    text = (files("model_store.build") / "data" / "shop.toml").read_text(encoding="utf-8")
    raw = tomllib.loads(text)
    vocabulary = Vocabulary(
        departments=tuple(_department(entry) for entry in raw["department"]),
        categories=tuple(
            _category(entry, department["slug"], raw["variants"])
            for department in raw["department"]
            for entry in department["category"]
        ),
        personas=tuple(_persona(entry) for entry in raw["persona"]),
        profile_values=raw["profile"],
    )
    _check(vocabulary)
    return vocabulary


def _phrases(pairs: list[list[str]]) -> tuple[Phrase, ...]:
    return tuple(Phrase(zh, en) for zh, en in pairs)


def _department(entry: dict[str, Any]) -> Department:
    slug = entry["slug"]
    brands = tuple(Brand(Phrase(zh, en), slug, TIERS.index(t)) for zh, en, t in entry["brands"])
    return Department(slug, brands, _phrases(entry["lines"]))


def _category(entry: dict[str, Any], department: str, variants: dict[str, Any]) -> Category:
    return Category(
        slug=entry["slug"],
        department=department,
        price=float(entry["price"]),
        consumable=entry.get("consumable", False),
        nouns=_phrases(entry["nouns"]),
        features=_phrases(entry["features"]),
        specs=_phrases(entry["specs"]),
        variants=tuple(Variant(*words) for words in variants[entry["variant"]]),
        complements=tuple(entry["complements"]),
    )


def _persona(entry: dict[str, Any]) -> Persona:
    return Persona(
        name=entry["name"],
        share=entry["share"],
        interests=entry["interests"],
        tiers=tuple(entry["tiers"]),
        profile=entry["profile"],
    )


def _check(vocabulary: Vocabulary) -> None:
    slugs = {category.slug for category in vocabulary.categories}
    departments = {department.slug for department in vocabulary.departments}
    for category in vocabulary.categories:
        if missing := set(category.complements) - slugs:
            raise ValueError(f"{category.slug}: unknown complements {sorted(missing)}")
    for persona in vocabulary.personas:
        if missing := set(persona.interests) - departments:
            raise ValueError(f"{persona.name}: unknown departments {sorted(missing)}")
        for field, odds in persona.profile.items():
            if missing := set(odds) - set(vocabulary.profile_values[field]):
                raise ValueError(f"{persona.name}: unknown values of {field} {sorted(missing)}")
