"""The evaluation of a build as Markdown with plots, for people: `report.md` and its images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPORT = "report.md"

_PARTS = {
    "history": "By the length of the history",
    "popularity": "By how often the target was clicked in what was learnt from",
    "scene": "By the scene",
}

COLD = {
    "hidden": "the history hidden, profile and scene known",
    "first": "the first item of users not learnt from, profile and scene known",
}


def write_report(
    folder: Path,
    *,
    name: str,
    facts: Mapping[str, Any],
    found: Mapping[str, Any],
    losses: Sequence[float],
    scores: Sequence[tuple[int, float]],
) -> Path:
    """Writes the report of what `evaluation` found into `folder`, which holds nothing else.

    facts: lines of the head, by name; scores: (epoch, validation NDCG@10).
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = f"{name} model"
    lines = [f"# {name}", "", *_table(["", ""], [[k, str(v)] for k, v in facts.items()])]
    lines += ["", "## Full ranking", "", *_metrics(found["overall"])]
    _plot_training(folder / "training.png", losses, scores)
    parts = {part: title for part, title in _PARTS.items() if found[part]}
    for part, title in parts.items():
        lines += ["", f"## {title}", "", *_parts(found[part]), "", f"![{title}]({part}.png)"]
        _plot_parts(folder / f"{part}.png", found[part], title)
    for kind, part in found.get("cold", {}).items():
        cases = f"{part['cases']:,} cases."
        lines += ["", f"## Cold start: {COLD[kind]}", "", cases, "", *_metrics(part["metrics"])]
    lines += ["", "## Without constraints", "", *_free(found, model)]
    lines += ["", "## Training", "", "![Loss and validation](training.png)", ""]
    (folder / REPORT).write_text("\n".join(lines), encoding="utf-8")
    return folder / REPORT


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def _metrics(rankers: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = list(next(iter(rankers.values())))
    return _table(["", *names], [[r, *(f"{v[n]:.4f}" for n in names)] for r, v in rankers.items()])


def _parts(buckets: Mapping[str, Any]) -> list[str]:
    """NDCG@10 of each ranker in each bucket, the best one bold."""
    rows = []
    for name, bucket in buckets.items():
        values = [metrics["NDCG@10"] for metrics in bucket["metrics"].values()]
        shown = [f"**{v:.4f}**" if v == max(values) > 0 else f"{v:.4f}" for v in values]
        rows.append([name, f"{bucket['cases']:,}", *shown])
    rankers = next(iter(buckets.values()))["metrics"]
    return _table(["NDCG@10", "cases", *rankers], rows)


def _free(found: Mapping[str, Any], model: str) -> list[str]:
    lines = []
    if "free" in found:
        free = found["free"]
        lines.append(
            f"Searching without the trie, {free['first']:.1%} of the first beams of {model} and"
            f" {free['all']:.1%} of ten are not the SID of any item. The trie makes both 0."
        )
    if "titles" in found:
        lines.append(f"Asked for the title of a SID, it writes {found['titles']:.1%} exactly.")
    return lines or ["Not measured."]


def _plot_parts(path: Path, buckets: Mapping[str, Any], title: str) -> None:
    axes = _axes()
    rankers = list(next(iter(buckets.values()))["metrics"])
    for i, ranker in enumerate(rankers):
        heights = [bucket["metrics"][ranker]["NDCG@10"] for bucket in buckets.values()]
        places = [
            place + (i - (len(rankers) - 1) / 2) * 0.8 / len(rankers)
            for place in range(len(buckets))
        ]
        axes.bar(places, heights, 0.8 / len(rankers), label=ranker)
    labels = [f"{name}\n{bucket['cases']:,} cases" for name, bucket in buckets.items()]
    axes.set_xticks(range(len(buckets)), labels)
    axes.set(ylabel="NDCG@10", title=title)
    axes.legend()
    _save(axes, path)


def _plot_training(
    path: Path, losses: Sequence[float], scores: Sequence[tuple[int, float]]
) -> None:
    axes = _axes()
    axes.plot(range(1, len(losses) + 1), losses, "o-", color="C0")
    axes.set(xlabel="epoch", ylabel="training loss")
    if scores:
        right = axes.twinx()
        right.plot(*zip(*scores, strict=True), "s--", color="C1")
        right.set_ylabel("validation NDCG@10", color="C1")
    _save(axes, path)


def _axes() -> Any:
    # Figures of our own: pyplot would keep them, and choose a backend for a screen.
    from matplotlib.figure import Figure

    return Figure(figsize=(7, 3.5), layout="constrained").subplots()


def _save(axes: Any, path: Path) -> None:
    # Without dates and versions, so that the same figures are the same file.
    axes.figure.savefig(path, dpi=110, metadata={"Software": None})
