"""Embedders: batched, they give what one text at a time gives."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import HashingVectorizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    T5Config,
    T5EncoderModel,
    T5Model,
)

from model_store.build.embed import Encoder, TextEmbedder, Vectors, load_embedder
from model_store.build.embed.blocks import BLOCK, embed_in_blocks
from model_store.build.embed.tfidf import hashed_words
from model_store.errors import BuildError

TEXTS = [
    "red cotton shirt",
    "a",
    "wireless charger 白色 " * 6,
    "wireless phone charger, 30 W",
    "blue cotton shirt",
    "无线 充电器 白色",
] * 3
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


def test_texts_about_the_same_thing_lie_close() -> None:
    vectors = TextEmbedder.fit(TEXTS, dimensions=4).embed(
        ["green cotton shirt", "cotton shirt", "phone charger", "充电器", "", "zzz qqq"]
    )
    near = vectors @ vectors.T
    assert near[0, 1] > 0.9
    assert near[0, 2] < 0.3
    assert near[2, 3] < near[0, 1]
    assert vectors[4].tolist() == [0.0] * vectors.shape[1]


@pytest.mark.parametrize("features", [7, 4096])
def test_words_fall_into_the_columns_of_scikit_learn(features: int) -> None:
    vectorizer = HashingVectorizer(
        n_features=features,
        token_pattern=r"(?u)[a-z0-9]+(?:\.[0-9]+)?|[\u4e00-\u9fff]",
        ngram_range=(1, 2),
        alternate_sign=False,
        norm=None,
    )
    texts = [*TEXTS, "", "…", "ÄÖ İstanbul K3 2.5 2.x 4K", "红red红 red", "a b " * 50]
    expected = vectorizer.transform(texts).toarray()
    for text, row in zip(texts, expected, strict=True):
        columns, counts = hashed_words(text, features)
        assert columns.tolist() == np.flatnonzero(row).tolist()
        assert counts.tolist() == row[columns].tolist()


def save_encoder(folder: Path, kind: str) -> Path:
    """A tiny encoder of random weights with a tokenizer of its own, as it would lie on a disk."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["[CLS]", "[SEP]", "<|end|>"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=320, special_tokens=specials, show_progress=False)
    )
    if kind == "bert":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
        )
    # A decoder often comes without a padding token.
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", model_max_length=40
    ).save_pretrained(folder)
    torch.manual_seed(0)
    # Room for the padding token that transformers' class for Qwen adds.
    vocabulary = tokenizer.get_vocab_size() + 1
    shape = {"vocab_size": vocabulary, "num_attention_heads": 4, "initializer_range": 0.3, **SIZES}
    if kind == "bert":
        BertModel(BertConfig(**shape, max_position_embeddings=40)).save_pretrained(folder)
    elif kind == "qwen":
        config = Qwen2Config(**shape, num_key_value_heads=2, max_position_embeddings=40)
        Qwen2Model(config).save_pretrained(folder)
    else:
        T5Model(
            T5Config(vocab_size=vocabulary, d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4)
        ).save_pretrained(folder)
    return folder


def one_by_one(folder: Path, texts: Sequence[str], pooling: str) -> Vectors:
    """Each text alone, so that nothing is padded."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config_name = AutoModel.from_pretrained(folder).config.model_type
    load = T5EncoderModel if config_name == "t5" else AutoModel
    model = load.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        ids = tokenizer(text, truncation=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            hidden = model(input_ids=ids).last_hidden_state[0]
        rows.append({"cls": hidden[0], "last": hidden[-1], "mean": hidden.mean(0)}[pooling])
    return np.stack([row.numpy() for row in rows])


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("bert", "cls"), ("bert", "mean"), ("qwen", "last"), ("qwen", "mean"), ("t5", "mean")],
)
def test_batches_give_what_one_text_at_a_time_gives(
    tmp_path: Path, kind: str, pooling: str
) -> None:
    folder = save_encoder(tmp_path / kind, kind)
    expected = one_by_one(folder, ["item: " + text for text in TEXTS], pooling)
    settings = Encoder.model_validate(
        {"model": str(folder), "pooling": pooling, "prefix": "item: ", "batch_tokens": 150}
    )
    for normalize in (False, True):
        about = settings.model_copy(update={"normalize": normalize}).model_dump()
        embedder = load_embedder({"embedder": "hugging-face", "encoder": about}, {})
        vectors = embedder.embed(TEXTS)
        norm = np.linalg.norm(expected, axis=1, keepdims=True) if normalize else 1.0
        assert vectors == pytest.approx(expected / norm, abs=2e-5)
        assert embedder.about()["encoder"] == about
    assert embedder.embed([]).shape == (0, 32)
    assert np.isfinite(embedder.embed([""])).all()


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"nowhere"):
        load_embedder(
            {"embedder": "hugging-face", "encoder": {"model": str(tmp_path / "nowhere")}}, {}
        )
    with pytest.raises(BuildError, match=r"'word2vec'"):
        load_embedder({"embedder": "word2vec"}, {})


def test_blocks_of_an_earlier_run_are_not_embedded_again(tmp_path: Path) -> None:
    texts = [f"shirt number {i}" for i in range(2 * BLOCK + 5)]
    words = TextEmbedder.fit(texts, dimensions=4)
    whole = embed_in_blocks(words, texts, tmp_path)
    assert whole == pytest.approx(words.embed(texts), abs=1e-6)
    first, second, third = sorted(tmp_path.rglob("*.npy"))
    kept = first.stat().st_mtime_ns
    second.unlink()  # as if killed before it was written
    third.with_suffix(".part").write_bytes(b"half")
    assert (embed_in_blocks(words, texts, tmp_path) == whole).all()
    assert first.stat().st_mtime_ns == kept
    assert second.exists()
    assert len(embed_in_blocks(words, texts[:3], tmp_path)) == 3
    third.write_bytes(b"broken")
    with pytest.raises(BuildError, match=third.name):
        embed_in_blocks(words, texts, tmp_path)
