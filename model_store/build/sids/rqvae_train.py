"""Trains an RQ-VAE, and takes up an interrupted training where its last checkpoint was written.

The same vectors, settings and seed give the same codebooks bit for bit on one CPU with one number
of threads, interrupted or not: a checkpoint holds the weights, the codebooks with their
moving averages, the optimiser and the one random generator that everything is drawn from.
"""

import hashlib
import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from rich.progress import Progress, TextColumn
from torch import Tensor, nn

from model_store.build.embed.base import Vectors
from model_store.build.sids.config import RqVae
from model_store.build.sids.residual import Dense, ResidualQuantizer
from model_store.build.sids.rqvae import RqVaeModel
from model_store.errors import BuildError

CHECKPOINT_EPOCHS = 10
"""Epochs between two checkpoints."""

_INITIAL_ITEMS = 16_384
"""Items that k-means sets the codebooks by."""

OnEpoch = Callable[[int, float], None]
"""Hears how many epochs are done, and the mean loss of the last one."""


def fit_rqvae(
    vectors: Vectors,
    sizes: Sequence[int],
    settings: RqVae,
    seed: int,
    checkpoint: Path,
    on_epoch: OnEpoch | None = None,
) -> ResidualQuantizer:
    """Trains on (n, dimensions), on the GPU where there is one.

    `checkpoint` is a file that need not exist; one of other vectors or settings is not taken up.
    Raises `BuildError` for a file that is no checkpoint.
    """
    run = _Run(vectors, sizes, settings, seed)
    run.resume(checkpoint)
    total = settings.warmup + settings.epochs
    columns = (*Progress.get_default_columns(), TextColumn("loss {task.fields[loss]:.3f}"))
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task("RQ-VAE", total=total, completed=run.epoch, loss=math.nan)
        while run.epoch < total:
            loss = run.one_epoch()
            if run.epoch % CHECKPOINT_EPOCHS == 0 or run.epoch == total:
                run.save(checkpoint)
            progress.update(bar, completed=run.epoch, loss=loss)
            if on_epoch:
                on_epoch(run.epoch, loss)
    return freeze(run.model)


class _Run:
    """A training and everything that it depends on."""

    def __init__(self, vectors: Vectors, sizes: Sequence[int], settings: RqVae, seed: int) -> None:
        self.settings, self.seed, self.epoch = settings, seed, 0
        about = f"{settings.model_dump_json()} {tuple(sizes)} {seed} {vectors.shape}"
        self.fingerprint = hashlib.sha256(about.encode() + vectors.tobytes()).hexdigest()
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = RqVaeModel(vectors.shape[1], sizes, settings)
        self.model.centre.copy_(torch.from_numpy(vectors.mean(0)))
        self.model.scale.fill_(max(float(vectors.var(0).mean()) ** 0.5, 1e-12))
        self.model.to("cuda" if torch.cuda.is_available() else "cpu").train()
        self.vectors = torch.from_numpy(vectors).to(self.model.centre.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )

    def one_epoch(self) -> float:
        """One pass over the items; returns the mean loss."""
        quantised = self.epoch >= self.settings.warmup
        if self.epoch == self.settings.warmup:
            with torch.no_grad():
                self.model.codebooks.initialise(
                    self.model.latent(self._draw(_INITIAL_ITEMS)), self.seed
                )
        # Cosine decay to a twentieth over the whole training.
        done = self.epoch / (self.settings.warmup + self.settings.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * (
                0.05 + 0.475 * (1 + math.cos(math.pi * done))
            )
        losses = [self._step(batch, quantised) for batch in self._batches()]
        self.epoch += 1
        return float(torch.stack(losses).mean())

    def save(self, path: Path) -> None:
        """Writes a checkpoint; whoever is killed meanwhile leaves the one before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }
        # By way of memory: on a full disk torch would raise a RuntimeError, the file an OSError.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        path.with_suffix(".part").write_bytes(buffer.getbuffer())
        os.replace(path.with_suffix(".part"), path)

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint, if there is one of this training."""
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, UnpicklingError) as error:
            raise BuildError(f"{path} is no checkpoint; remove it to start anew") from error
        if state["fingerprint"] != self.fingerprint:
            return
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])

    def _step(self, batch: Tensor, quantised: bool) -> Tensor:
        loss = self.model.loss(batch, self.generator, quantised=quantised)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _batches(self) -> list[Tensor]:
        """All items in a new order, in batches of like size: a small rest would jolt averages."""
        order = torch.randperm(len(self.vectors), generator=self.generator)
        count = max(1, round(len(order) / self.settings.batch))
        return [self.vectors[rows.to(self.vectors.device)] for rows in order.tensor_split(count)]

    def _draw(self, count: int) -> Tensor:
        rows = torch.randperm(len(self.vectors), generator=self.generator)[:count]
        return self.vectors[rows.to(self.vectors.device)]


def freeze(model: RqVaeModel) -> ResidualQuantizer:
    """The trained model in numpy; the inputs' scale becomes part of the outer layers."""
    encoder, decoder = _layers(model.encoder), _layers(model.decoder)
    centre, scale = model.centre.cpu().numpy(), float(model.scale)
    first, last = encoder[0], decoder[-1]
    weight = first.weight / scale
    encoder[0] = Dense(weight, first.bias - centre @ weight)
    decoder[-1] = Dense(last.weight * scale, last.bias * scale + centre)
    books = tuple(
        model.codebooks.codes(level).cpu().numpy() for level in range(len(model.codebooks.sizes))
    )
    return ResidualQuantizer(books, tuple(encoder), tuple(decoder))


def _layers(perceptron: nn.Sequential) -> list[Dense]:
    return [
        Dense(
            np.ascontiguousarray(layer.weight.detach().cpu().numpy().T),
            layer.bias.detach().cpu().numpy(),
        )
        for layer in perceptron
        if isinstance(layer, nn.Linear)
    ]
