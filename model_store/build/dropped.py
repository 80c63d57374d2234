"""What a build leaves out, counted by reason."""

from rich.table import Table


class Dropped:
    """Counts of what was left out, by reason, with one example of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, str] = {}

    def add(self, reason: str, example: object, count: int = 1) -> None:
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count
            self.examples.setdefault(reason, str(example))

    def table(self) -> Table:
        table = Table(title="dropped")
        for column in ("what", "how many", "such as"):
            table.add_column(column, justify="right" if column == "how many" else "left")
        for reason, count in self.counts.items():
            table.add_row(reason, f"{count:,}", self.examples[reason])
        return table
