"""`sidrec bench …`: every benchmark as a command; its function's signature is its options."""

import typer

from bench.engine import engine
from bench.trie import trie

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def commands() -> None:
    """Measurements that anyone can repeat: each prints a table, writes JSON and draws a plot."""


app.command()(engine)
app.command()(trie)
