"""`sidrec bench …`: every benchmark is a command, and its function's signature its options."""

import typer

from bench.agreement import agreement
from bench.catalogue import catalogue
from bench.eligibility import eligibility
from bench.engine import engine
from bench.experiment import experiment
from bench.overload import overload
from bench.replay import replay
from bench.saturation import saturation
from bench.search import search
from bench.service import service
from bench.soak import soak
from bench.swap import swap
from bench.trie import trie
from bench.vllm_profile import vllm_profile

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def commands() -> None:
    """Measurements that anyone can repeat: each prints a table, writes JSON and draws a plot."""


app.command()(engine)
app.command()(agreement)
app.command()(trie)
app.command()(eligibility)
app.command()(service)
app.command()(catalogue)
app.command()(experiment)
app.command()(saturation)
app.command()(overload)
app.command()(swap)
app.command()(soak)
app.command()(replay)
app.command()(search)
app.command("vllm-profile")(vllm_profile)
