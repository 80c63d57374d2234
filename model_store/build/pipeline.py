"""From a configuration to a published bundle, step by step.

1. data       items and click sequences                     shop.py, or files
2. SIDs       text → embedding → residual quantisation      embed/, sids/
3. split      what is trained on, what is asked afterwards
4. training   prompts → a small model from scratch          dataset.py, train.py
5. evaluation HR and NDCG beside the baselines              evaluate.py
6. publishing a numbered bundle, its metrics in the manifest
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from model_store.build.config import BuildConfig, FileData
from model_store.build.dataset import NextItemEncoder, UserSequence
from model_store.build.evaluate import (
    Case,
    Ranker,
    compare,
    cooccurrence_ranker,
    popularity,
    popularity_ranker,
)
from model_store.build.shop import generate_shop
from model_store.build.sids import make_sids
from model_store.build.tokenizer import train_tokenizer
from model_store.build.train import train
from model_store.bundle import Bundle
from model_store.catalogue import read_json_lines
from model_store.errors import BuildError
from model_store.report import metrics_table
from model_store.sid import infer_spec
from model_store.store import Store, create_bundle

RankerFor = Callable[[Bundle], Ranker]

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Split:
    """Sequences to learn from, and cases to be asked."""

    learn: list[UserSequence]
    cases: list[Case]


def build(config: BuildConfig, store: Store, work: Path, ranker_for: RankerFor) -> Path:
    """Runs every step and returns the folder of the published version.

    `work` receives the intermediate files; `ranker_for` ranks through a serving engine.
    Raises `BuildError` for unusable input.
    """
    console = Console()
    console.rule(f"[bold]{config.name}")
    items, users = _data(config)
    row_of = {item["item_id"]: row for row, item in enumerate(items)}
    sequences = [_sequence(user, row_of) for user in users]
    split = _split(config, sequences)
    counts = popularity(split.learn, len(items))
    for item, count in zip(items, counts, strict=True):
        item["popularity"] = int(count)
    if config.sids:
        spec = make_sids(config.sids, items, [user.items for user in split.learn], work)
    else:
        spec = infer_spec(item["sid"] for item in items)
    console.print(
        f"{len(items):,} items, {len({i['sid'] for i in items}):,} SIDs,"
        f" {len(split.learn):,} users to learn from, {len(split.cases):,} to be asked"
    )

    started = time.monotonic()
    tokenizer = train_tokenizer(_texts(config, items), spec, config.vocabulary)
    codes = spec.parse([item["sid"] for item in items])
    encoder = NextItemEncoder(tokenizer, spec, config.prompt, codes)
    losses = train(split.learn, encoder, tokenizer, config.model, config.train, work / "model")
    training = config.model_dump(mode="json", include={"data", "split", "sids", "model", "train"})
    training |= {"loss": losses[-1], "seconds": round(time.monotonic() - started)}

    parts: dict[str, Any] = {
        "name": config.name,
        "model": work / "model",
        "items": _write(items, work / "items.jsonl"),
        "prompt": config.prompt,
        "quantizer": work / "quantizer" if config.sids else None,
        "training": training,
    }
    trial = Bundle.load(create_bundle(Store(work / "trial"), **parts))
    rankers = {
        "popularity": popularity_ranker(counts),
        "co-occurrence": cooccurrence_ranker(split.learn, counts),
        f"{config.name} model": _reordered(ranker_for(trial), trial, items),
    }
    results = compare(rankers, split.cases)
    console.print(metrics_table(results, f"full ranking, {len(split.cases):,} held-out targets"))
    return create_bundle(store, **parts, metrics=results)


def _data(config: BuildConfig) -> tuple[list[Row], list[Row]]:
    if isinstance(config.data, FileData):
        return list(read_json_lines(config.data.items)), list(
            read_json_lines(config.data.sequences)
        )
    shop = generate_shop(config.data.seed, config.data.items, config.data.users, progress=True)
    return shop.items, shop.users


def _sequence(user: Row, row_of: dict[str, int]) -> UserSequence:
    try:
        rows = tuple(row_of[item] for item in user["sequence"])
        return UserSequence(str(user["user_id"]), rows, user.get("profile", {}))
    except KeyError as error:
        raise BuildError(f"user {user.get('user_id')!r}: no {error}") from error


def _split(config: BuildConfig, sequences: Sequence[UserSequence]) -> Split:
    usable = [s for s in sequences if len(s.items) > (1 if config.split.kind == "users" else 2)]
    cases = [Case(replace(s, items=s.items[:-1]), s.items[-1]) for s in usable]
    if config.split.kind == "leave-one-out":
        return Split([replace(s, items=s.items[:-2]) for s in usable], cases)
    chosen = np.random.default_rng(config.train.seed).random(len(usable)) < config.split.share
    learn = [s for s, out in zip(usable, chosen, strict=True) if not out]
    return Split(learn, [case for case, out in zip(cases, chosen, strict=True) if out])


def _texts(config: BuildConfig, items: Sequence[Row]) -> list[str]:
    """What the tokenizer learns its words from: titles, and the prompt as often as it occurs."""
    titles = [str(item["title"]) for item in items if item.get("title")]
    fields = [
        field.text.replace("{}", value)
        for field in config.prompt.profile
        for value in [*(field.values or ()), field.unknown]
    ]
    frame = config.prompt.text.replace("{profile}", "").split("{history}")
    return titles + (fields + frame + [config.prompt.separator]) * 50


def _reordered(ranker: Ranker, bundle: Bundle, items: Sequence[Row]) -> Ranker:
    """A ranker over catalogue rows, for cases in the order of the items file, and back."""
    to_catalogue = [bundle.catalogue.row_of[item["item_id"]] for item in items]
    to_file = {row: i for i, row in enumerate(to_catalogue)}

    def rank(cases: Sequence[Case]) -> list[list[int]]:
        moved = [
            Case(
                replace(case.user, items=tuple(to_catalogue[i] for i in case.user.items)),
                to_catalogue[case.target],
            )
            for case in cases
        ]
        return [[to_file[row] for row in rows] for rows in ranker(moved)]

    return rank


def _write(items: Sequence[Row], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for item in items:
            file.write(json.dumps(item, ensure_ascii=False) + "\n")
    return path
