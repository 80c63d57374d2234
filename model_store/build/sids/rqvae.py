"""RQ-VAE: an autoencoder whose latent vector is quantised level by level (Lee et al., 2022), and
whose codes are semantic IDs (TIGER, Rajput et al., 2023).

Loss: mean squared error of the reconstruction + commitment × Σ over levels ‖residual − sg(code)‖²;
the gradient passes the quantisation straight through. The codebooks follow exponential moving
averages of what they are given (van den Oord et al., 2017, appendix A.1), and a code that falls out
of use is revived at a residual of the batch (Dhariwal et al., 2020, Jukebox).

Why not `ResidualVQ` of vector-quantize-pytorch 1.32: it gives SIDs of the same quality (measured on
the demo shop and on Office), but 1.6 times as slowly; its k-means starts from a random draw in
place of k-means++ and leaves empty centres on top of each other; one absolute threshold of revival
serves levels of every size; it draws from the process's random state, which a checkpoint would have
to own; and it brings four more packages for what are forty lines here.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from model_store.build.sids.config import RqVae
from model_store.build.sids.kmeans import cluster


class Codebooks(nn.Module):
    """Residual quantisation. Per level: codes (size, D), and moving averages of how often a code
    is used, relative to the mean (size,), and of the sum of its residuals (size, D)."""

    def __init__(self, sizes: Sequence[int], dimensions: int, decay: float, dead: float) -> None:
        super().__init__()
        self.sizes, self.decay, self.dead = tuple(sizes), decay, dead
        for level, size in enumerate(sizes):
            self.register_buffer(f"codes_{level}", torch.zeros(size, dimensions))
            self.register_buffer(f"use_{level}", torch.ones(size))
            self.register_buffer(f"total_{level}", torch.zeros(size, dimensions))

    def codes(self, level: int) -> Tensor:
        return self.get_buffer(f"codes_{level}")

    def forward(
        self, latent: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, D) to the quantised (B, D), gradient straight through, and the commitment loss.

        In training mode the codebooks move; `generator` draws the residuals of revived codes.
        """
        residual, quantised = latent, torch.zeros_like(latent)
        commitment = latent.new_zeros(())
        for level in range(len(self.sizes)):
            codes = self.codes(level)
            with torch.no_grad():
                nearest = ((codes**2).sum(1) - 2 * residual @ codes.T).argmin(1)  # (B,)
                chosen = codes[nearest]  # (B, D)
            commitment = commitment + nn.functional.mse_loss(residual, chosen)
            if self.training:
                self._follow(level, residual.detach(), nearest, generator)
            quantised, residual = quantised + chosen, residual - chosen
        return latent + (quantised - latent).detach(), commitment

    @torch.no_grad()
    def initialise(self, latent: Tensor, seed: int) -> None:
        """K-means++ and k-means at each level, on what the levels before left of (n, D)."""
        residual = latent.cpu().numpy()
        for level, size in enumerate(self.sizes):
            centres, nearest = cluster(residual, size, 1, seed + level)
            residual = residual - centres[nearest]
            count = torch.bincount(torch.from_numpy(nearest), minlength=size)
            found = torch.from_numpy(centres)
            use = count.to(found) / len(nearest) * size
            # Fewer distinct points than codes: the rest is out of use, and is revived.
            padded = nn.functional.pad(found, (0, 0, 0, size - len(found)))
            self.codes(level).copy_(padded)
            self.get_buffer(f"use_{level}").copy_(use)
            self.get_buffer(f"total_{level}").copy_(padded * use[:, None])

    @torch.no_grad()
    def _follow(
        self, level: int, residual: Tensor, nearest: Tensor, generator: torch.Generator | None
    ) -> None:
        codes, size = self.codes(level), self.sizes[level]
        use, total = self.get_buffer(f"use_{level}"), self.get_buffer(f"total_{level}")
        relative = size / len(residual)
        count = torch.bincount(nearest, minlength=size).to(use)
        summed = torch.zeros_like(total).index_add_(0, nearest, residual)
        use.lerp_(count * relative, 1 - self.decay)
        total.lerp_(summed * relative, 1 - self.decay)
        codes.copy_(total / use.clamp(min=1e-6)[:, None])
        dead = (use < self.dead).nonzero()[:, 0]
        if len(dead):
            drawn = torch.randint(len(residual), (len(dead),), generator=generator)
            revived = residual[drawn.to(residual.device)]
            codes[dead], total[dead], use[dead] = revived, revived, 1.0


class RqVaeModel(nn.Module):
    """Encoder, codebooks, decoder. `centre` (D,) and `scale` () bring the inputs to unit size."""

    centre: Tensor
    scale: Tensor

    def __init__(self, dimensions: int, sizes: Sequence[int], settings: RqVae) -> None:
        super().__init__()
        widths = [dimensions, *settings.hidden, settings.latent]
        self.encoder, self.decoder = _perceptron(widths), _perceptron(widths[::-1])
        self.codebooks = Codebooks(sizes, settings.latent, settings.decay, settings.dead)
        self.commitment = settings.commitment
        self.register_buffer("centre", torch.zeros(dimensions))
        self.register_buffer("scale", torch.ones(()))

    def loss(
        self, vectors: Tensor, generator: torch.Generator | None, *, quantised: bool
    ) -> Tensor:
        """Of a batch (B, D); without quantisation that of a plain autoencoder."""
        inputs = (vectors - self.centre) / self.scale
        latent = self.encoder(inputs)
        commitment = latent.new_zeros(())
        if quantised:
            latent, commitment = self.codebooks(latent, generator)
        reconstruction = nn.functional.mse_loss(self.decoder(latent), inputs)
        return torch.add(reconstruction, commitment, alpha=self.commitment)

    def latent(self, vectors: Tensor) -> Tensor:
        """What is quantised: (B, D) to (B, latent dimensions)."""
        latent: Tensor = self.encoder((vectors - self.centre) / self.scale)
        return latent


def _perceptron(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
