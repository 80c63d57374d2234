"""What each stage of a build does; `pipeline` says in which order, `stages` when it is redone."""

import json
import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from tokenizers import Tokenizer

from model_store.build.adapters import check_scenes, in_scene, train_adapter
from model_store.build.blend import blended, choose_weight, counted, show, write_blend
from model_store.build.config import BuildConfig, FileData
from model_store.build.evaluate import FinderFor, Split, metrics
from model_store.build.evaluation import sample
from model_store.build.examination import examine
from model_store.build.files import Row, write_rows
from model_store.build.ingest import ITEMS, ingest, read_items, read_split
from model_store.build.model import (
    Pretrained,
    Trainee,
    extended_tokenizer,
    fine_tuned,
    from_scratch,
)
from model_store.build.results import SPEC, Results
from model_store.build.rows import catalogue_rows, moved, reordered
from model_store.build.served import served_finder
from model_store.build.sids.stage import make_sids
from model_store.build.stages import Stage, Work
from model_store.build.tasks import export, mixture
from model_store.build.tokenizer import save_tokenizer, train_tokenizer, words_of
from model_store.build.train import STATE, Validate, train
from model_store.catalogue import Catalogue
from model_store.errors import BuildError
from model_store.sid import infer_spec


class Steps:
    """The stages of one build, each a method that fills a folder."""

    def __init__(
        self, config: BuildConfig, work: Work, finder_for: FinderFor, console: Console
    ) -> None:
        self._config = config
        self._work = work
        self._results = Results(config, work)
        self._finder_for = finder_for
        self._console = console

    def stages(self) -> list[Stage]:
        config = self._config
        base = config.model.base if isinstance(config.model, Pretrained) else None
        drawn = config.train.model_dump(
            include={"max_history", "last_share", "cold_share", "mix", "seed"}, mode="json"
        )
        part = config.model_dump(mode="json")
        adapters = Stage(
            "adapters",
            self._adapters,
            [part["prompt"], part["train"], part["adapters"]],
            after=["ingest", "sids", "dataset", "train"],
            resumes=True,
        )
        trained = ["train", "adapters"] if config.adapters else ["train"]
        blend = Stage(
            "blend",
            self._blend,
            [part["neighbours"], part["blend"], part["evaluate"]["exclude_seen"]],
            after=["ingest", "sids", "dataset", *trained],
        )
        made = [*trained, "blend"] if config.blend else trained
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
            *([adapters] if config.adapters else []),
            *([blend] if config.blend else []),
            Stage(
                "evaluate",
                self._evaluate,
                [part["name"], part["neighbours"], part["evaluate"]],
                after=["ingest", "sids", "dataset", *made],
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
        Catalogue.from_items(items, spec)  # what it would refuse, it refuses before the training
        (folder / "spec.json").write_bytes(SPEC.dump_json(spec, indent=2))
        write_rows(items, folder / ITEMS)
        sids = len({item["sid"] for item in items})
        self._console.print(f"{len(items):,} items, {sids:,} SIDs")

    def _dataset(self, folder: Path) -> None:
        config, items, split = self._config, *self._results.data()
        if config.adapters:
            check_scenes(config.adapters, split.learn)  # now, and not after hours of training
        if isinstance(config.model, Pretrained):
            extended_tokenizer(config.model.base, self._results.spec()).save_pretrained(folder)
        else:
            tokenizer = train_tokenizer(
                words_of(config.prompt, items), self._results.spec(), config.vocabulary
            )
            save_tokenizer(tokenizer, folder, config.model.max_length)
        export(split.learn, self._results.encoder(items, folder), config.train, folder)
        self._console.print(
            f"{len(split.learn):,} users to learn from,"
            f" {len(split.valid):,} cases to validate on, {len(split.test):,} to be asked"
        )

    def _train(self, folder: Path) -> None:
        config, items, split = self._config, *self._results.data()
        encoder, result = self._results.encoder(items), folder / "training.json"
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
            return fine_tuned(model, self._work.path("dataset"), self._results.spec())
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
                bundle = self._results.trial(Path(folder), model)
                ranked = reordered(blended(self._finder_for(bundle), None), bundle, items)(cases)
            return metrics(ranked, [case.target for case in cases])["NDCG@10"]

        return validate

    def _adapters(self, folder: Path) -> None:
        config, items, split = self._config, *self._results.data()
        assert config.adapters
        check_scenes(config.adapters, split.learn)
        encoder = self._results.encoder(items)
        for scene in config.adapters.scenes:
            self._console.print(scene)
            examples = in_scene(split.learn, encoder, config.train, scene)
            train_adapter(
                config.adapters, self._results.model, examples, config.train, folder / scene
            )

    def _blend(self, folder: Path) -> None:
        config, items, split = self._config, *self._results.data()
        assert config.blend
        neighbours = counted(split, len(items), config.neighbours, config.blend.keep)
        rule = {"exclude_seen": config.evaluate.exclude_seen}
        with TemporaryDirectory(prefix="sidrec-") as place:
            trial = Path(place)
            bundle = self._results.trial(trial, self._results.model)
            base = self._finder_for(bundle, **rule)
            finder = served_finder(config, self._results, self._finder_for, base, trial)
            rows = catalogue_rows(bundle, items)
            valid = [moved(case, rows) for case in split.valid]
            scores = choose_weight(config.blend, neighbours.moved(rows), finder, valid, **rule)
        write_blend(folder, config.blend, neighbours, scores)
        show(scores, self._console)

    def _evaluate(self, folder: Path) -> None:
        examine(self._config, self._results, self._finder_for, folder, self._console)
