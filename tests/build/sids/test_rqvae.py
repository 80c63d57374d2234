"""The RQ-VAE: what it finds, and that its training can be repeated and taken up."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model_store.build.sids.config import RqVae
from model_store.build.sids.report import purity
from model_store.build.sids.residual import ResidualQuantizer
from model_store.build.sids.rqvae import Codebooks, RqVaeModel
from model_store.build.sids.rqvae_train import CHECKPOINT_EPOCHS, fit_rqvae, freeze
from model_store.errors import BuildError
from tests.build.sids.clusters import clusters

SMALL = RqVae(kind="rq-vae", hidden=(32,), latent=8, warmup=20, epochs=60, batch=64)


def arrays(quantizer: ResidualQuantizer) -> list[np.ndarray]:
    layers = (*quantizer.encoder, *quantizer.decoder)
    parts = [part for layer in layers for part in (layer.weight, layer.bias)]
    return [*quantizer.codebooks, *parts]


def same(one: ResidualQuantizer, other: ResidualQuantizer) -> bool:
    pairs = zip(arrays(one), arrays(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_hierarchical_clusters_are_recovered(tmp_path: Path) -> None:
    points, label = clusters()
    quantizer = fit_rqvae(points, (4, 8), SMALL, 0, tmp_path / "c")
    codes = quantizer.encode(points)
    coarse = purity(codes[:, 0], label[:, 0])
    assert coarse is not None
    assert coarse >= 0.9
    assert len(np.unique(codes[:, 0])) == 4
    _, both = np.unique(codes, axis=0, return_inverse=True)
    fine = purity(both, label[:, 0] * 4 + label[:, 1])
    assert fine is not None
    assert fine >= 0.9
    spread = ((points - points.mean(0)) ** 2).sum(1).mean()
    assert quantizer.errors(points, codes).mean() < 0.02 * spread


def test_an_interrupted_training_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    """Interrupted before and behind the codebooks' initialisation, and once more at the end."""
    points, _ = clusters()
    whole = fit_rqvae(points, (4, 4), SMALL, 7, tmp_path / "whole")
    assert same(whole, fit_rqvae(points, (4, 4), SMALL, 7, tmp_path / "again"))

    def stop_at(last: int) -> Callable[[int, float], None]:
        def stop(epoch: int, loss: float) -> None:
            if epoch == last:
                raise KeyboardInterrupt

        return stop

    path = tmp_path / "parts"
    for last in (CHECKPOINT_EPOCHS + 3, SMALL.warmup + CHECKPOINT_EPOCHS + 3):
        with pytest.raises(KeyboardInterrupt):
            fit_rqvae(points, (4, 4), SMALL, 7, path, stop_at(last))
    epochs: list[int] = []
    resumed = fit_rqvae(points, (4, 4), SMALL, 7, path, lambda epoch, _: epochs.append(epoch))
    assert epochs[0] == SMALL.warmup + CHECKPOINT_EPOCHS + 1
    assert same(whole, resumed)
    finished = fit_rqvae(points, (4, 4), SMALL, 7, path, lambda epoch, _: epochs.append(-1))
    assert -1 not in epochs
    assert same(whole, finished)


def test_the_checkpoint_of_another_training_is_not_taken_up(tmp_path: Path) -> None:
    points, _ = clusters()
    short = SMALL.model_copy(update={"warmup": 2, "epochs": 4})
    fit_rqvae(points, (4, 4), short, 1, tmp_path / "c")
    other = fit_rqvae(points, (4, 4), short, 2, tmp_path / "c")
    assert same(other, fit_rqvae(points, (4, 4), short, 2, tmp_path / "new"))


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"no checkpoint")
    with pytest.raises(BuildError, match=r"remove it"):
        fit_rqvae(clusters()[0], (4, 4), SMALL, 0, tmp_path / "c")


def test_training_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    short = SMALL.model_copy(update={"warmup": 1, "epochs": 2})
    fit_rqvae(clusters()[0], (4, 4), short, 0, tmp_path / "c")
    assert torch.equal(torch.rand(3), expected)


def test_frozen_it_computes_what_the_model_computes() -> None:
    torch.manual_seed(0)
    model = RqVaeModel(6, (5, 3), SMALL.model_copy(update={"hidden": (16, 12), "latent": 4}))
    vectors = torch.randn(200, 6) * 3 + 5
    model.centre.copy_(vectors.mean(0))
    model.scale.fill_(3.0)
    with torch.no_grad():
        model.codebooks.initialise(model.latent(vectors), 0)
        model.eval()
        quantised, _ = model.codebooks(model.latent(vectors))
        decoded = model.decoder(quantised) * model.scale + model.centre
    frozen = freeze(model)
    codes = frozen.encode(vectors.numpy())
    assert frozen.decode(codes) == pytest.approx(decoded.numpy(), abs=1e-4)


def test_the_gradient_passes_the_quantisation_straight_through() -> None:
    books = Codebooks((4, 4), 3, decay=0.9, dead=0.0)
    latent = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    books.initialise(latent.detach(), 0)
    quantised, commitment = books.eval()(latent)
    weight = torch.arange(60.0).reshape(20, 3)
    (quantised * weight).sum().backward()
    assert torch.equal(latent.grad, weight)  # type: ignore[arg-type]
    latent = latent.detach()
    first = books.codes(0)
    nearest = first[torch.cdist(latent, first).argmin(1)]
    second = books.codes(1)
    rest = latent - nearest
    expected = (rest**2).mean() + ((rest - second[torch.cdist(rest, second).argmin(1)]) ** 2).mean()
    assert commitment.item() == pytest.approx(expected.item(), rel=1e-4)


def test_codebooks_follow_their_moving_averages() -> None:
    books = Codebooks((2,), 1, decay=0.75, dead=0.0)
    books.initialise(torch.tensor([[0.0], [0.0], [10.0], [10.0]]), 0)
    low, high = books.codes(0).ravel().argsort().tolist()
    books.train()(torch.tensor([[2.0], [2.0], [2.0], [11.0]]), torch.Generator())
    # Use relative to the mean: was 1 and 1, now 1.5 and 0.5.
    assert float(books.codes(0)[low]) == pytest.approx(0.25 * 1.5 * 2 / (0.75 + 0.25 * 1.5))
    expected = (0.75 * 10 + 0.25 * 0.5 * 11) / (0.75 + 0.25 * 0.5)
    assert float(books.codes(0)[high]) == pytest.approx(expected)


def test_a_dead_code_is_revived_where_the_data_is() -> None:
    books = Codebooks((3,), 1, decay=0.5, dead=0.1)
    books.initialise(torch.tensor([[0.0], [1.0], [100.0]]), 0)
    far = int(books.codes(0).ravel().argmax())
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        books.train()(torch.tensor([[0.0], [0.1], [0.9], [1.0]]), generator)
    assert 0 <= float(books.codes(0)[far]) <= 1
