"""The SIDs of a catalogue, as one step of a build."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from model_store.build.embed import Embedder, TextEmbedder, Vectors, load_embedder
from model_store.build.embed.blocks import embed_in_blocks
from model_store.build.sids.collaborative import Clicks, click_vectors
from model_store.build.sids.collisions import resolve_collisions, spec_for
from model_store.build.sids.config import RqVae, Sids
from model_store.build.sids.joint import Joint
from model_store.build.sids.kmeans import fit_residual_kmeans
from model_store.build.sids.quantizer import Quantizer, item_texts
from model_store.build.sids.report import colliding, lost_variance, report, sid_table
from model_store.build.sids.residual import ResidualQuantizer
from model_store.build.sids.sid_plot import plot_sids
from model_store.errors import BuildError
from model_store.sid import SidSpec

REPORT = "sid_report.json"
PLOT = "sids.png"

_MOST_HELD_OUT = 20_000
"""More reference errors tell no more."""


def make_sids(settings: Sids, items: list[dict[str, Any]], clicks: Clicks, folder: Path) -> SidSpec:
    """Gives every item its `sid`, and returns their spec.

    items:  need an `item_id`; `popularity` numbers colliding items
    clicks: rows of the items that users clicked, of the training part only; read if the settings
            have a `collaborative` part
    folder: receives `quantizer/` (see `Quantizer`), the report and a plot; what an interrupted
            run left there is taken up

    Raises `BuildError` where there is too little to learn from.
    """
    if len(items) < 2:
        raise BuildError(f"SIDs need at least two items, not {len(items)}")
    console = Console()
    texts = item_texts(items, settings.text)
    _complain(console, items, texts, settings)
    learn = _learnt(len(items), settings)

    embedder, joint, vectors, as_later = _vectors(settings, texts, learn, clicks, folder)
    residual = _fit(settings, vectors[learn], folder)
    codes = residual.encode(vectors)
    reference = residual.errors(as_later, residual.encode(as_later))

    popularity = np.array([item.get("popularity") or 0 for item in items], np.float64)
    solved = resolve_collisions(
        codes,
        popularity,
        settings.collisions,
        lambda rows: residual.last_distances(vectors[rows], codes[rows]),
    )
    spec = spec_for(solved, residual.sizes)
    for item, sid in zip(items, spec.texts(solved[:, : spec.depth]).to_pylist(), strict=True):
        item["sid"] = sid
    Quantizer(
        text=settings.text,
        embedder=embedder,
        residual=residual,
        kind=settings.quantizer.kind,
        collisions=settings.collisions,
        joint=joint,
        reference=np.sort(reference),
    ).save(folder / "quantizer")

    errors = residual.errors(vectors[learn], codes[learn])
    attribute = [item.get(settings.report_by) for item in items]
    made = report(
        solved,
        residual.sizes,
        attribute if any(attribute) else None,
        before=colliding(codes),
        error=lost_variance(vectors[learn], errors),
        held_out=lost_variance(as_later, reference),
    )
    (folder / REPORT).write_text(json.dumps(made.as_json(), indent=2) + "\n")
    plot_sids(made, solved, folder / PLOT, errors=errors, held_out=reference)
    console.print(sid_table(made, f"SIDs by {settings.quantizer.kind}"))
    return spec


def _learnt(n_items: int, settings: Sids) -> npt.NDArray[np.bool_]:
    """Which items the quantizer learns from: (items,)."""
    held_out = min(max(1, round(n_items * settings.held_out)), _MOST_HELD_OUT, n_items - 1)
    learn = np.ones(n_items, bool)
    learn[np.random.default_rng(settings.seed).permutation(n_items)[:held_out]] = False
    return learn


def _vectors(
    settings: Sids,
    texts: Sequence[str],
    learn: npt.NDArray[np.bool_],
    clicks: Clicks,
    folder: Path,
) -> tuple[Embedder, Joint | None, Vectors, Vectors]:
    """The embedder, what joins clicks to its vectors, and what is quantised: of all items, and of
    those held out as if they were later ones, of which no click is known."""
    embedder, text = _embed(settings, texts, learn, folder)
    if settings.collaborative is None:
        return embedder, None, text, text[~learn]
    clicked = click_vectors(clicks, len(texts), settings.collaborative, settings.seed)
    joint = Joint.fit(text, clicked, settings.collaborative, learn)
    return embedder, joint, joint.join(text, clicked), joint.join(text[~learn])


def _embed(
    settings: Sids, texts: Sequence[str], learn: npt.NDArray[np.bool_], folder: Path
) -> tuple[Embedder, Vectors]:
    if settings.encoder is None:
        words = TextEmbedder.fit(
            [text for text, known in zip(texts, learn, strict=True) if known],
            dimensions=settings.dimensions,
            seed=settings.seed,
        )
        return words, words.embed(texts)
    about = {"embedder": "hugging-face", "encoder": settings.encoder}
    embedder = load_embedder(about, {})
    return embedder, embed_in_blocks(embedder, texts, folder / "embeddings")


def _fit(settings: Sids, vectors: Vectors, folder: Path) -> ResidualQuantizer:
    if isinstance(settings.quantizer, RqVae):
        # torch takes seconds to import, and k-means does without it.
        from model_store.build.sids.rqvae_train import fit_rqvae

        checkpoint = folder / "rqvae.checkpoint"
        return fit_rqvae(vectors, settings.sizes, settings.quantizer, settings.seed, checkpoint)
    return fit_residual_kmeans(vectors, settings.sizes, settings.quantizer, settings.seed)


def _complain(
    console: Console, items: Sequence[dict[str, Any]], texts: Sequence[str], settings: Sids
) -> None:
    """Items without a word still get SIDs, for they may have clicks; but these say nothing."""
    silent = [str(item["item_id"]) for item, text in zip(items, texts, strict=True) if not text]
    if len(silent) == len(items):
        raise BuildError(f"no item has {' or '.join(settings.text)}: SIDs are made of text")
    if silent:
        console.print(
            f"[yellow]without {' or '.join(settings.text)}, so that their SIDs say nothing:"
            f" {len(silent):,} of {len(items):,} items,"
            f" {', '.join(silent[:5])}{' …' if len(silent) > 5 else ''}"
        )
