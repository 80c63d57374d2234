"""Draws the demo shop's people: what they tell of themselves, and the tastes they do not tell.

The profile and the tastes both come from a hidden persona, so the profile helps a model to guess
the tastes of a person with little history, and never gives them away.
"""

from dataclasses import dataclass

import numpy as np

from model_store.build.shop_vocabulary import TIERS, UNKNOWN, Persona, Vocabulary

FloatArray = np.ndarray[tuple[int], np.dtype[np.float64]]

SHY_SHARE = 0.12  # of each profile field left unsaid
TIER_MATCH = np.array([[1.0, 0.35, 0.05], [0.4, 1.0, 0.4], [0.05, 0.4, 1.0]])
FAVOURITE_PULL = 26.0
SECOND_PULL = 8.0


@dataclass(frozen=True)
class Person:
    profile: dict[str, str]
    category_taste: FloatArray  # (C,), sums to 1
    brand_pull: FloatArray  # (B,), how much likelier each brand is than a stranger's
    scene_habit: FloatArray  # odds of opening the shop at home, by search, by promotion


class People:
    """Draws persons of one vocabulary; holds the tables that all of them share."""

    def __init__(self, vocabulary: Vocabulary, rng: np.random.Generator) -> None:
        self._vocabulary = vocabulary
        self._rng = rng
        self._shares = np.array([persona.share for persona in vocabulary.personas])
        self._shares /= self._shares.sum()
        self._brand_tiers = np.array([brand.tier for brand in vocabulary.brands])
        self._brands_of = _brands_by_department(vocabulary)
        # How well known each brand is: some favourites are everybody's.
        self._fame = rng.gamma(4.0, 0.25, len(vocabulary.brands))

    def draw(self) -> Person:
        choice = int(self._rng.choice(len(self._shares), p=self._shares))
        persona = self._vocabulary.personas[choice]
        tier = int(self._rng.choice(len(TIERS), p=np.array(persona.tiers)))
        return Person(
            profile=self._profile(persona),
            category_taste=self._category_taste(persona),
            brand_pull=self._brand_pull(tier),
            scene_habit=self._scene_habit(tier),
        )

    def _profile(self, persona: Persona) -> dict[str, str]:
        profile = {}
        for field in self._vocabulary.profile_values:
            odds = persona.profile[field]
            weights = np.array(list(odds.values()), dtype=np.float64)
            value = list(odds)[int(self._rng.choice(len(odds), p=weights / weights.sum()))]
            profile[field] = UNKNOWN if self._rng.random() < SHY_SHARE else value
        return profile

    def _category_taste(self, persona: Persona) -> FloatArray:
        """A few categories take most of a person's interest, and a trickle goes everywhere."""
        weights = np.array(
            [
                persona.interests.get(category.department, 0.0)
                for category in self._vocabulary.categories
            ]
        )
        taste = self._rng.gamma(0.1 * weights + 0.002)
        return np.asarray(0.97 * taste / taste.sum() + 0.03 / len(taste))

    def _brand_pull(self, tier: int) -> FloatArray:
        match = TIER_MATCH[tier][self._brand_tiers]
        pull = match.copy()
        for brands in self._brands_of:
            odds = match[brands] * self._fame[brands]
            favourites = self._rng.choice(brands, size=2, replace=False, p=odds / odds.sum())
            loyalty = self._rng.beta(4.0, 2.0)
            pull[favourites[0]] += FAVOURITE_PULL * loyalty
            pull[favourites[1]] += SECOND_PULL * loyalty
        return np.asarray(pull)

    def _scene_habit(self, tier: int) -> FloatArray:
        bargain_hunting = (4.0, 2.0, 1.0)[tier]
        return np.asarray(self._rng.dirichlet([4.0, 3.0, bargain_hunting]))


def _brands_by_department(
    vocabulary: Vocabulary,
) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    names = np.array([brand.department for brand in vocabulary.brands])
    return [np.flatnonzero(names == department.slug) for department in vocabulary.departments]
