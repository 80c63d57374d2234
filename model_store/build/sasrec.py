"""SASRec, the baseline that a sequence model has to beat (Kang & McAuley, 2018).

Self-attention over the item ids of a history, causal, with learnt positions, predicting each next
item by the dot product with the item embeddings. One thing differs from the paper: the loss is a
softmax instead of binary cross entropy against one sampled negative, because that is the stronger
baseline (Klenitskiy & Vasilev, 2023, "Turning Dross Into Gold Loss"). It goes over all items or,
where those are many, over the target and some items drawn for each batch.
"""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from pydantic import Field
from rich.progress import track
from torch import Tensor, nn

from model_store.build.dataset import UserSequence
from model_store.build.evaluate import CUTOFFS, Case, Ranker, metrics
from model_store.build.section import Section

_AT_ONCE = 256


class SasRecSettings(Section):
    """The paper's sizes, at most `length` events of a history."""

    hidden: int = 64
    blocks: int = 2
    heads: int = 1
    length: int = 50
    dropout: float = 0.3
    epochs: int = 40
    batch: int = 128
    learning_rate: float = 1e-3
    negatives: int = Field(
        default=0,
        ge=0,
        description="items that a target is told from, new ones each batch; 0: all",
    )
    validate_cases: int = Field(default=0, ge=0, description="the first so many of them; 0: all")
    patience: int = 5
    seed: int = 20


class Block(nn.Module):
    """Causal self-attention, then a feed-forward layer applied to each position."""

    def __init__(self, settings: SasRecSettings) -> None:
        super().__init__()
        width = settings.hidden
        self.before_attention, self.before_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(
            width, settings.heads, settings.dropout, batch_first=True
        )
        self.feed = nn.Sequential(
            *(nn.Linear(width, width), nn.ReLU(), nn.Dropout(settings.dropout)),
            *(nn.Linear(width, width), nn.Dropout(settings.dropout)),
        )

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        query = self.before_attention(x)
        attended, _ = self.attention(query, x, x, attn_mask=later, need_weights=False)
        x = query + attended
        normed = self.before_feed(x)
        out: Tensor = normed + self.feed(normed)
        return out


class SasRec(nn.Module):
    """Item 0 is padding, which stands behind a history; a catalogue row is item row + 1."""

    def __init__(self, n_items: int, settings: SasRecSettings) -> None:
        super().__init__()
        self.length = settings.length
        self.items = nn.Embedding(n_items + 1, settings.hidden, padding_idx=0)
        self.positions = nn.Embedding(settings.length, settings.hidden)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.blocks))
        self.dropout = nn.Dropout(settings.dropout)
        self.norm = nn.LayerNorm(settings.hidden)
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, items: Tensor) -> Tensor:
        """items (B, L) to hidden states (B, L, D)."""
        places = torch.arange(items.shape[1], device=items.device)
        # The paper scales the embeddings as Vaswani et al. do.
        x = self.items(items) * self.items.embedding_dim**0.5 + self.positions(places)
        x = self.dropout(x)
        later = torch.ones(len(places), len(places), dtype=torch.bool, device=x.device).triu(1)
        for block in self.blocks:
            x = block(x, later)
        normed: Tensor = self.norm(x)
        return normed

    def scores(self, hidden: Tensor) -> Tensor:
        """(N, D) to the scores of all catalogue rows (N, n_items)."""
        return hidden @ self.items.weight[1:].T


def train_sasrec(
    sequences: Sequence[UserSequence],
    n_items: int,
    settings: SasRecSettings,
    valid: Sequence[Case] = (),
    *,
    exclude_seen: bool = False,
) -> SasRec:
    """Trains on every next item of the sequences. With validation cases the epoch with the best
    NDCG@10 is kept, and `patience` epochs without a gain are the end; `exclude_seen` as in
    `sasrec_ranker`."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    model = SasRec(n_items, settings).to("cuda" if torch.cuda.is_available() else "cpu")
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate, betas=(0.9, 0.98))
    histories = [user.items for user in sequences if len(user.items) > 1]
    best, best_score, since = copy.deepcopy(model.state_dict()), -1.0, 0
    valid = valid[: settings.validate_cases or None]
    for _ in track(range(settings.epochs), "SASRec"):
        model.train()
        for chosen in _batches(histories, settings.batch, rng):
            optimizer.zero_grad()
            _loss(model, chosen, settings.negatives).backward()
            optimizer.step()
        if not valid:
            continue
        targets = [case.target for case in valid]
        ranked = sasrec_ranker(model, exclude_seen=exclude_seen)(valid)
        score = metrics(ranked, targets)["NDCG@10"]
        best_score, since = (score, 0) if score > best_score else (best_score, since + 1)
        if since == 0:
            best = copy.deepcopy(model.state_dict())
        elif since == settings.patience:
            break
    if valid:
        model.load_state_dict(best)
    return model


def sasrec_ranker(model: SasRec, *, exclude_seen: bool = False) -> Ranker:
    """Ranks all items by a trained model, with `exclude_seen` less those of the history."""

    @torch.inference_mode()
    def rank(cases: Sequence[Case]) -> list[list[int]]:
        model.eval()
        found: list[list[int]] = []
        for start in range(0, len(cases), _AT_ONCE):
            histories = [case.user.items for case in cases[start : start + _AT_ONCE]]
            batch, lengths = _padded([h[-model.length :] for h in histories], model)
            hidden = model(batch)[torch.arange(len(batch)), lengths - 1]
            scores = model.scores(hidden)
            for row, history in enumerate(histories if exclude_seen else ()):
                scores[row, list(history)] = -torch.inf
            found += scores.topk(min(max(CUTOFFS), scores.shape[1])).indices.tolist()
        return found

    return rank


def _batches(
    histories: Sequence[Sequence[int]], size: int, rng: np.random.Generator
) -> Iterator[list[Sequence[int]]]:
    """All histories in batches of like lengths, so that little is padding, each of as many events
    as `size` histories have on average; both orders by chance."""
    lengths = np.array([len(history) for history in histories])
    order = np.lexsort((rng.random(len(histories)), lengths))
    batch = lengths[order].cumsum() // (size * lengths.mean())
    parts = np.split(order, np.flatnonzero(np.diff(batch)) + 1)
    for part in rng.permutation(len(parts)):
        yield [histories[i] for i in parts[part]]


def _loss(model: SasRec, histories: Sequence[Sequence[int]], negatives: int) -> Tensor:
    """Mean cross entropy of every next item over all items, or over it and `negatives` others that
    are drawn for the whole batch, each item as likely as any."""
    batch, _ = _padded([h[-model.length - 1 :] for h in histories], model)
    inputs, targets = batch[:, :-1], batch[:, 1:]
    asked = targets > 0
    hidden, right = model(inputs)[asked], targets[asked]
    if not negatives:
        return nn.functional.cross_entropy(model.scores(hidden), right - 1)
    drawn = torch.randint(1, model.items.num_embeddings, (negatives,), device=right.device)
    others = hidden @ model.items(drawn).T  # (N, negatives)
    others = others.masked_fill(drawn == right[:, None], -torch.inf)
    own = (hidden * model.items(right)).sum(1)
    loss: Tensor = (torch.cat([own[:, None], others], 1).logsumexp(1) - own).mean()
    return loss


def _padded(histories: Sequence[Sequence[int]], model: SasRec) -> tuple[Tensor, Tensor]:
    """Items (B, L), padded on the right, where a causal model does not see it; lengths (B,)."""
    lengths = torch.tensor([len(history) for history in histories])
    batch = torch.zeros(len(histories), int(lengths.max()), dtype=torch.long)
    for row, history in enumerate(histories):
        batch[row, : len(history)] = torch.tensor(history) + 1
    device = model.items.weight.device
    return batch.to(device), lengths.to(device)
