"""Item text to vectors by any Hugging Face encoder: BERT-like, a decoder such as Qwen3-Embedding,
or the encoder half of a T5."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from model_store.build.embed.base import Encoder, Vectors
from model_store.errors import BuildError


@dataclass(frozen=True, slots=True)
class HuggingFaceEmbedder:
    """An encoder with its weights, on the GPU where there is one."""

    settings: Encoder
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel

    @classmethod
    def load(cls, settings: Encoder) -> "HuggingFaceEmbedder":
        """Loads from a folder, the local cache or the hub. Raises `BuildError` if it cannot."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(settings.model)
            model = AutoModel.from_pretrained(
                settings.model, dtype=getattr(torch, settings.dtype), use_safetensors=True
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise BuildError(f"encoder {settings.model!r} cannot be loaded: {reason}") from error
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(settings, tokenizer, model.eval().to(device))

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Batches of similar length, longest first: what does not fit into memory fails at once."""
        if not texts:
            return np.zeros((0, self.model.config.hidden_size), np.float32)
        ids = self.tokenizer(
            [self.settings.prefix + text for text in texts],
            truncation=True,
            max_length=min(self.settings.max_tokens, self.tokenizer.model_max_length),
        )["input_ids"]
        # A decoder's tokenizer may make nothing at all of an empty text.
        ids = [row or [self._filler] for row in ids]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        batches = _batches(order, [len(row) for row in ids], self.settings.batch_tokens)
        pooled = [self._forward([ids[row] for row in rows]) for rows in batches]
        vectors = np.empty((len(texts), pooled[0].shape[1]), np.float32)
        vectors[order] = np.concatenate(pooled)
        return vectors

    def about(self) -> Mapping[str, Any]:
        return {"embedder": "hugging-face", "encoder": self.settings.model_dump()}

    def tensors(self) -> Mapping[str, Vectors]:
        """None: the encoder's weights stay where they are."""
        return {}

    @property
    def _filler(self) -> int:
        """The token behind a short text; masked, so any would do where there is none for it."""
        ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((token for token in ids if token is not None), 0)

    @torch.inference_mode()
    def _forward(self, ids: Sequence[Sequence[int]]) -> Vectors:
        # Padding behind the text is invisible to causal attention and moves no position.
        tokens = pad_sequence([torch.tensor(row) for row in ids], True, self._filler)
        mask = (torch.arange(tokens.shape[1]) < torch.tensor([[len(row)] for row in ids])).long()
        tokens, mask = tokens.to(self.model.device), mask.to(self.model.device)
        hidden = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
        vectors = pool(hidden, mask, self.settings.pooling)
        if self.settings.normalize:
            vectors = torch.nn.functional.normalize(vectors)
        return np.asarray(vectors.cpu().numpy(), np.float32)


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """(B, T, D) and a mask (B, T) of leading ones to (B, D)."""
    if pooling == "cls":
        return hidden[:, 0]
    lengths = mask.sum(1, keepdim=True)  # (B, 1)
    if pooling == "last":
        return hidden[torch.arange(len(hidden)), lengths[:, 0] - 1]
    return (hidden * mask[:, :, None]).sum(1) / lengths


def _batches(order: Sequence[int], lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Cuts rows, longest first, into batches of at most `tokens` padded positions."""
    batches: list[list[int]] = []
    for row in order:
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > tokens:
            batches.append([])
        batches[-1].append(row)
    return batches
