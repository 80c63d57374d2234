"""What a build can choose about SIDs: the `[sids]` section of a configuration."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from model_store.build.embed.base import Encoder
from model_store.build.section import Section
from model_store.sid.spec import LARGEST_CODEBOOK

Codebook = Annotated[int, Field(ge=1, le=LARGEST_CODEBOOK)]
Collisions = Literal["keep", "extra", "reassign"]


class ResidualKMeans(Section):
    """One k-means after the other, each on what the ones before left over."""

    kind: Literal["residual-kmeans"] = "residual-kmeans"
    restarts: int = Field(default=4, ge=1, description="k-means runs per level; the best is kept")


class RqVae(Section):
    """An autoencoder whose latent vector is quantised level by level."""

    kind: Literal["rq-vae"]
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (256, 128)
    latent: int = Field(default=32, ge=1)
    warmup: int = Field(default=30, ge=0, description="epochs as a plain autoencoder, before that")
    epochs: int = Field(default=300, ge=1)
    batch: int = Field(default=512, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    commitment: float = Field(default=0.25, ge=0, description="weight beside the reconstruction")
    decay: float = Field(default=0.99, gt=0, lt=1, description="of the codebooks' moving averages")
    dead: float = Field(
        default=0.1, ge=0, lt=1, description="share of the mean use below which a code is revived"
    )


class Collaborative(Section):
    """Who is clicked together, joined to the text: squared distances are mixed by `weight`."""

    dimensions: int = Field(default=64, ge=1)
    weight: float = Field(default=0.5, gt=0, lt=1, description="of the clicks; text has the rest")
    reach: int = Field(default=3, ge=1, description="steps apart at which two clicks are together")
    shift: float = Field(default=1.0, ge=1, description="k of the shifted positive PMI")


class Sids(Section):
    """How items get their SIDs.

    text:        the attributes that are read, in this order
    encoder:     a Hugging Face encoder; without one, hashed words (TF-IDF, truncated SVD)
    dimensions:  of the hashed words' vectors; an encoder has its own
    codes:       codebook size, one for all levels or one for each
    collisions:  what becomes of items with the same codes
                 keep      they share one SID
                 extra     each gets an extra token, numbered by falling popularity
                 reassign  at the last level they move to the nearest code that is free behind
                           their other codes; those for whom none is left get the extra token
    held_out:    share of the items that the quantizer does not learn from: their reconstruction
                 error is what later items are compared with
    report_by:   the attribute by which the purity of prefixes is reported
    """

    text: tuple[str, ...] = Field(default=("title",), min_length=1)
    encoder: Encoder | None = None
    dimensions: int = Field(default=96, ge=1)
    collaborative: Collaborative | None = None
    levels: int = Field(default=4, ge=1, le=20)
    codes: Codebook | tuple[Codebook, ...] = 256
    quantizer: Annotated[ResidualKMeans | RqVae, Field(discriminator="kind")] = ResidualKMeans()
    collisions: Collisions = "extra"
    held_out: float = Field(default=0.1, gt=0, le=0.5)
    report_by: str = "category"
    seed: int = 20

    @model_validator(mode="after")
    def _one_size_per_level(self) -> Self:
        if len(self.sizes) != self.levels:
            raise ValueError(f"codes has {len(self.sizes)} sizes for {self.levels} levels")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """The codebook size of each level."""
        return (self.codes,) * self.levels if isinstance(self.codes, int) else self.codes
