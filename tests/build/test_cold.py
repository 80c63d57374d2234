"""Cold starts: what is hidden, and what popularity in a scene is, by hand."""

import pytest

from model_store.build.cold import first, hidden, measure_cold, scene_popularity_ranker
from model_store.build.dataset import UserSequence
from model_store.build.evaluate import Case, Split

AGE = {"age": "old"}
LEARN = [
    UserSequence("a", (0, 1, 1), scenes=("home", "cart", "cart")),
    UserSequence("b", (0, 2), scenes=("home", None)),
    UserSequence("c", (0, 2), scene="cart"),
]
CASES = [
    Case(UserSequence("d", (3, 4), AGE, "home", ("cart", "home")), 0),
    Case(UserSequence("e", (5,), {}, None), 1),
    Case(UserSequence("f", (), AGE, "cart"), 2),
]


def test_hidden_keeps_target_profile_and_scene() -> None:
    assert hidden(CASES) == [
        Case(UserSequence("d", (), AGE, "home"), 0),
        Case(UserSequence("e", (), {}, None), 1),
        Case(UserSequence("f", (), AGE, "cart"), 2),
    ]


def test_first_is_asked_for_in_its_own_scene() -> None:
    assert first(CASES) == [
        Case(UserSequence("d", (), AGE, "cart"), 3),
        Case(UserSequence("e", (), {}, None), 5),
    ]


def test_popularity_in_a_scene_by_hand() -> None:
    ranked = scene_popularity_ranker(LEARN, 6)
    of = {scene: UserSequence("u", (), scene=scene) for scene in ("home", "cart", "attic", None)}
    home, cart, attic, none = ranked([Case(user, 0) for user in of.values()])
    assert home[:3] == [0, 1, 2]  # then by how often overall, then as they stand
    assert cart[:3] == [1, 0, 2]
    assert attic == none == [0, 1, 2, 3, 4, 5]


def test_each_is_measured_beside_popularity() -> None:
    split = Split(LEARN, [], CASES)
    seen: list[Case] = []

    def model(cases: list[Case]) -> list[list[int]]:
        seen.extend(cases)
        return [[5, case.target] for case in cases]

    found = measure_cold("ours", model, split, 6, strangers=True)  # type: ignore[arg-type]
    assert {kind: part["cases"] for kind, part in found.items()} == {"hidden": 3, "first": 2}
    assert not any(case.user.items for case in seen)
    assert list(found["hidden"]["metrics"]) == ["popularity", "popularity in the scene", "ours"]
    assert found["hidden"]["metrics"]["popularity"]["HR@1"] == pytest.approx(1 / 3)
    assert found["hidden"]["metrics"]["ours"]["HR@1"] == 0
    assert found["first"]["metrics"]["ours"]["HR@1"] == 0.5
    assert found["first"]["metrics"]["ours"]["HR@5"] == 1

    sceneless = Split([UserSequence("a", (0, 1))], [], CASES)
    found = measure_cold("ours", model, sceneless, 6, strangers=False)  # type: ignore[arg-type]
    assert list(found) == ["hidden"]
    assert list(found["hidden"]["metrics"]) == ["popularity", "ours"]
