"""What each stage of a build does; `pipeline` says in which order, `stages` when it is redone."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from rich.console import Console
from tokenizers import Tokenizer

from model_store.build.config import BuildConfig, FileData
from model_store.build.dataset import Encoder
from model_store.build.evaluate import RankerFor, Split, metrics
from model_store.build.evaluation import (
    baselines,
    measure,
    sample,
    write_freely,
    write_metrics,
)
from model_store.build.files import Row, write_rows
from model_store.build.ingest import ITEMS, ingest, read_items, read_split
from model_store.build.model import (
    Pretrained,
    Trainee,
    extended_tokenizer,
    fine_tuned,
    from_scratch,
)
from model_store.build.publish import make_bundle, model_name
from model_store.build.report import write_report
from model_store.build.rows import catalogue_rows, moved, reordered
from model_store.build.sids import make_sids
from model_store.build.stages import Stage, Work
from model_store.build.tasks import export, mixture
from model_store.build.tokenizer import save_tokenizer, train_tokenizer, words_of
from model_store.build.train import STATE, Validate, train
from model_store.bundle import Bundle
from model_store.errors import BuildError
from model_store.report import metrics_table
from model_store.sid import SidSpec, infer_spec
from model_store.store import Store

_SPEC = TypeAdapter(SidSpec)


class Steps:
    """The stages of one build, each a method that fills a folder."""

    def __init__(
        self, config: BuildConfig, work: Work, ranker_for: RankerFor, console: Console
    ) -> None:
        self._config = config
        self._work = work
        self._ranker_for = ranker_for
        self._console = console

    def stages(self) -> list[Stage]:
        config = self._config
        base = config.model.base if isinstance(config.model, Pretrained) else None
        drawn = config.train.model_dump(
            include={"max_history", "last_share", "cold_share", "mix", "seed"}, mode="json"
        )
        part = config.model_dump(mode="json")
        return [
            Stage(
                "ingest",
                self._ingest,
                [part["data"], part["split"], part["sids"] and part["sids"]["text"], drawn["seed"]],
                config.data.files if isinstance(config.data, FileData) else (),
            ),
            Stage("sids", self._sids, part["sids"], after=["ingest"], resumes=True),
            Stage(
                "dataset",
                self._dataset,
                [part["prompt"], part["vocabulary"], base, drawn],
                after=["ingest", "sids"],
            ),
            Stage(
                "train",
                self._train,
                [part["prompt"], part["model"], part["train"]],
                after=["ingest", "sids", "dataset"],
                resumes=True,
            ),
            Stage(
                "evaluate",
                self._evaluate,
                [part["name"], part["evaluate"]],
                after=["ingest", "sids", "dataset", "train"],
            ),
        ]

    def _ingest(self, folder: Path) -> None:
        dropped = ingest(self._config, folder)
        if dropped.counts:
            self._console.print(dropped.table())

    def _sids(self, folder: Path) -> None:
        items = read_items(self._work.path("ingest"))
        if self._config.sids:
            clicks = [user.items for user in read_split(self._work.path("ingest"), items).learn]
            spec = make_sids(self._config.sids, items, clicks, folder)
        else:
            spec = infer_spec(item["sid"] for item in items)
        (folder / "spec.json").write_bytes(_SPEC.dump_json(spec, indent=2))
        write_rows(items, folder / ITEMS)
        sids = len({item["sid"] for item in items})
        self._console.print(f"{len(items):,} items, {sids:,} SIDs")

    def _dataset(self, folder: Path) -> None:
        config, items, split = self._config, *self._read()
        if isinstance(config.model, Pretrained):
            extended_tokenizer(config.model.base, self._spec()).save_pretrained(folder)
        else:
            tokenizer = train_tokenizer(
                words_of(config.prompt, items), self._spec(), config.vocabulary
            )
            save_tokenizer(tokenizer, folder, config.model.max_length)
        export(split.learn, self._encoder(items, folder), config.train, folder)
        self._console.print(
            f"{len(split.learn):,} users to learn from,"
            f" {len(split.valid):,} cases to validate on, {len(split.test):,} to be asked"
        )

    def _train(self, folder: Path) -> None:
        config, items, split = self._config, *self._read()
        encoder, result = self._encoder(items), folder / "training.json"
        if not result.exists():
            started = time.monotonic()
            progress = train(
                self._trainee,
                mixture(split.learn, encoder, config.train),
                config.train,
                folder,
                self._validation(items, split) if config.train.validate_every else None,
            )
            seconds = round(time.monotonic() - started)
            part = result.with_suffix(".part")
            part.write_text(json.dumps(vars(progress) | {"seconds": seconds}, indent=2) + "\n")
            os.replace(part, result)
        shutil.rmtree(folder / STATE, ignore_errors=True)

    def _trainee(self) -> Trainee:
        model = self._config.model
        if isinstance(model, Pretrained):
            return fine_tuned(model, self._work.path("dataset"), self._spec())
        tokenizer = Tokenizer.from_file(str(self._work.path("dataset") / "tokenizer.json"))
        return from_scratch(model, tokenizer)

    def _validation(self, items: list[Row], split: Split) -> Validate:
        if not split.valid:
            raise BuildError(
                "train.validate_every needs validation cases: see split.kind and valid_share"
            )
        rng = np.random.default_rng(self._config.train.seed)
        cases = sample(split.valid, self._config.train.validate_cases, rng)

        def validate(model: Path) -> float:
            with TemporaryDirectory(prefix="sidrec-") as folder:
                bundle = self._trial(Store(folder), model)
                ranked = reordered(self._ranker_for(bundle), bundle, items)(cases)
            return metrics(ranked, [case.target for case in cases])["NDCG@10"]

        return validate

    def _evaluate(self, folder: Path) -> None:
        config, items, split = self._config, *self._read()
        with TemporaryDirectory(prefix="sidrec-") as trial:
            bundle = self._trial(Store(trial), self._work.path("train") / "model")
            rankers = baselines(split, len(items), config.evaluate)
            ranker = self._ranker_for(bundle, exclude_seen=config.evaluate.exclude_seen)
            rankers[model_name(config)] = reordered(ranker, bundle, items)
            found = measure(rankers, split, len(items))
            found |= write_freely(
                bundle,
                [moved(case, catalogue_rows(bundle, items)) for case in split.test],
                config.evaluate,
                max_history=config.train.max_history,
                titles=config.train.mix.sid_to_title > 0,
            )
        write_metrics(found, folder)
        training = json.loads((self._work.path("train") / "training.json").read_text())
        write_report(
            folder / "report",
            name=config.name,
            facts=self._facts(items, split, training),
            found=found,
            losses=training["losses"],
            scores=training["scores"],
        )
        title = f"full ranking, {len(split.test):,} held-out targets"
        self._console.print(metrics_table(found["overall"], title))

    def _trial(self, store: Store, model: Path) -> Bundle:
        """A bundle to measure, in a store of its own."""
        return Bundle.load(make_bundle(self._config, self._work, store, model))

    def _read(self) -> tuple[list[Row], Split]:
        items = read_items(self._work.path("sids"))
        return items, read_split(self._work.path("ingest"), items)

    def _spec(self) -> SidSpec:
        return _SPEC.validate_json((self._work.path("sids") / "spec.json").read_bytes())

    def _encoder(self, items: Sequence[Row], folder: Path | None = None) -> Encoder:
        folder, spec = folder or self._work.path("dataset"), self._spec()
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        return Encoder(
            Tokenizer.from_file(str(folder / "tokenizer.json")),
            spec,
            self._config.prompt,
            spec.parse([item["sid"] for item in items]),
            end=settings["eos_token"],
            titles=[item.get("title") for item in items],
        )

    def _facts(
        self, items: Sequence[Row], split: Split, training: dict[str, Any]
    ) -> dict[str, Any]:
        model = self._config.model
        return {
            "items": f"{len(items):,}",
            "users to learn from": f"{len(split.learn):,}",
            "events to learn from": f"{sum(len(user.items) for user in split.learn):,}",
            "cases": f"{len(split.test):,} ({self._config.split.kind})",
            "items of the history": "in no ranking"
            if self._config.evaluate.exclude_seen
            else "in the rankings of popularity and model, not of co-occurrence and SASRec",
            "model": model.base if isinstance(model, Pretrained) else "Qwen2 from scratch",
            "epochs": training["epochs"],
        }
