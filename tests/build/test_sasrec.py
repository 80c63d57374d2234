"""SASRec learns what a chain of clicks has to teach, and sees nothing of the future."""

import numpy as np
import pytest
import torch

from model_store.build.dataset import UserSequence
from model_store.build.evaluate import Case, metrics
from model_store.build.sasrec import SasRec, SasRecSettings, sasrec_ranker, train_sasrec

N = 30
SETTINGS = SasRecSettings(hidden=32, epochs=30, dropout=0.1, length=12, learning_rate=5e-3)


def walks(rng: np.random.Generator, users: int) -> list[UserSequence]:
    """A second-order chain: the next item is told by the last two, and by neither alone."""
    found = []
    for u in range(users):
        items = rng.integers(N, size=2).tolist()
        while len(items) < 10:
            items.append((items[-1] + 3 * (items[-2] % 3) + 1) % N)
        found.append(UserSequence(f"u{u}", tuple(items)))
    return found


def cases(users: list[UserSequence]) -> list[Case]:
    return [Case(UserSequence(u.user_id, u.items[:-1]), u.items[-1]) for u in users]


@pytest.mark.parametrize("negatives", [0, 10])
def test_it_learns_a_chain(negatives: int) -> None:
    rng = np.random.default_rng(0)
    asked = cases(walks(rng, 300))
    settings = SETTINGS.model_copy(update={"negatives": negatives})
    model = train_sasrec(walks(rng, 600), N, settings)
    found = metrics(sasrec_ranker(model)(asked), [case.target for case in asked])
    assert found["HR@1"] > 0.9


def test_validation_keeps_the_best_epoch_and_ends_early() -> None:
    """Noise has nothing to teach: the longer it is learnt, the worse; patience ends that."""
    rng = np.random.default_rng(1)
    noise = [UserSequence(f"u{u}", tuple(rng.integers(N, size=6).tolist())) for u in range(60)]
    settings = SETTINGS.model_copy(update={"epochs": 1000, "patience": 2, "hidden": 8})
    model = train_sasrec(noise, N, settings, cases(noise[:20]))
    assert isinstance(model, SasRec)  # ended, long before a thousand epochs


def test_it_is_causal_and_blind_to_padding() -> None:
    torch.manual_seed(0)
    model = SasRec(N, SETTINGS).eval()
    items = torch.randint(1, N + 1, (1, 8))
    changed = items.clone()
    changed[0, 5:] = 0
    with torch.inference_mode():
        torch.testing.assert_close(model(items)[:, :5], model(changed)[:, :5])


def test_rankings_repeat_and_may_leave_out_the_history() -> None:
    histories = walks(np.random.default_rng(2), 50)
    one, two = (
        train_sasrec(histories, N, SETTINGS.model_copy(update={"epochs": 2})) for _ in range(2)
    )
    asked = cases(histories)
    free = sasrec_ranker(one)(asked)
    assert free == sasrec_ranker(two)(asked)
    unseen = sasrec_ranker(one, exclude_seen=True)(asked)
    for rows, others, case in zip(unseen, free, asked, strict=True):
        assert len(set(rows)) == 10
        assert not set(rows) & set(case.user.items)
        # Nothing else changes: what is left of the free ranking comes first.
        left = [row for row in others if row not in case.user.items]
        assert rows[: len(left)] == left
    assert free != unseen


@pytest.mark.parametrize("length", [1, 5, 40])
def test_any_history_length(length: int) -> None:
    model = SasRec(N, SETTINGS)
    rng = np.random.default_rng(3)
    case = Case(UserSequence("u", tuple(rng.integers(N // 2, size=length).tolist())), 0)
    assert len(sasrec_ranker(model)([case])[0]) == 10
