"""Command-line options that several benchmarks have in common."""

from pathlib import Path
from typing import Annotated

import typer

from bench.report import OUT


class Ints(tuple[int, ...]):
    """Numbers as one types them: 1,16,64."""

    def __str__(self) -> str:
        return ",".join(map(str, self))

    @classmethod
    def parse(cls, text: object) -> "Ints":
        """Raises `typer.BadParameter` for anything else."""
        try:
            numbers = cls(int(part) for part in str(text).split(","))
        except ValueError as error:
            raise typer.BadParameter(f"{text} is not a list of numbers such as 1,16") from error
        if min(numbers) < 1:
            raise typer.BadParameter(f"{text}: numbers start at 1")
        return numbers


def ints(help: str) -> typer.models.OptionInfo:
    info: typer.models.OptionInfo = typer.Option(parser=Ints.parse, metavar="N,N,…", help=help)
    return info


Out = Annotated[Path, typer.Option(help="Folder of the JSON file and the plot.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of one torch operation.")]
BundleFolder = Annotated[
    Path | None, typer.Option("--bundle", help="Folder of a bundle; by default the demo.")
]
InFlight = Annotated[int, typer.Option(min=2, help="At any time, to saturate.")]
Crowd = Annotated[int, typer.Option(min=1, help="Users with a stored history.")]
DEFAULT_OUT = OUT
DEFAULT_THREADS = 2
DEFAULT_IN_FLIGHT = 32
DEFAULT_CROWD = 500
