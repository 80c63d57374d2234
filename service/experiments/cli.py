"""`sidrec experiments …`: a thin client of the endpoints of a service that runs; and the planner,
which needs none."""

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from service.asking import DEFAULT_URL, Url, ask, fail

app = typer.Typer(
    help="Which of two models, or settings, is better: begin, watch and end experiments.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="of the experiment")]


@app.command("list")
def show(url: Url = DEFAULT_URL) -> None:
    """Show the experiments that are kept."""
    table = Table("experiment", "status", "arms", "scene", "start", "end")
    for one in ask("GET", url, "/v1/experiments")["experiments"]:
        arms = ", ".join(f"{arm['name']} {arm['share']:.0%}" for arm in one["arms"])
        end = _moment(one["end"]) if one["end"] else ""
        start = _moment(one["start"])
        table.add_row(one["name"], one["status"], arms, one["scene"] or "all", start, end)
    Console().print(table)


@app.command()
def put(
    name: Name,
    file: Annotated[Path, typer.Argument(help="JSON, as PUT /v1/experiments/{name} takes it")],
    url: Url = DEFAULT_URL,
) -> None:
    """Begin an experiment, or change one."""
    try:
        design = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        fail([f"{file}: {error}"], 1)
    made = ask("PUT", url, _path(name), design)
    typer.echo(f"{name} is {made['status']}, from {_moment(made['start'])} UTC")


@app.command()
def stop(name: Name, url: Url = DEFAULT_URL) -> None:
    """End an experiment now; what it found stays."""
    ask("POST", url, f"{_path(name)}/stop")
    typer.echo(f"{name} has ended")


@app.command()
def delete(name: Name, url: Url = DEFAULT_URL) -> None:
    """Remove an experiment and all that it counted."""
    ask("DELETE", url, _path(name))
    typer.echo(f"{name} is removed")


@app.command()
def force(
    name: Name,
    user: Annotated[str, typer.Argument(help="id of the user")],
    arm: Annotated[str | None, typer.Argument(help="by default the one of the hash again")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Let a user see an arm, for testing; such a user is not counted."""
    path = f"{_path(name)}/users/{quote(user, safe='')}"
    if arm is None:
        ask("DELETE", url, path)
    else:
        ask("PUT", url, path, {"arm": arm})
    typer.echo(f"{user} sees {arm or 'what the hash says'}")


@app.command()
def report(name: Name, url: Url = DEFAULT_URL) -> None:
    """Show what an experiment has found so far."""
    _print(ask("GET", url, f"{_path(name)}/report"))


@app.command()
def plan(
    base_rate: Annotated[float, typer.Option(min=1e-6, max=0.999, help="UCTR of the control.")],
    lift: Annotated[float, typer.Option(min=1e-4, max=10, help="Relative change to find.")] = 0.1,
    alpha: Annotated[float, typer.Option(min=1e-6, max=0.5, help="False alarms.")] = 0.05,
    power: Annotated[float, typer.Option(min=0.5, max=0.999, help="Chance to find it.")] = 0.8,
    ratio: Annotated[
        float, typer.Option(min=1e-3, max=1e3, help="Users of the other arm over the control's.")
    ] = 1.0,
) -> None:
    """Say how many users it takes to find a lift. Asks no service."""
    from service.experiments.statistics import users_needed

    needed = users_needed(base_rate, lift, alpha=alpha, power=power, ratio=ratio)
    if needed is None:
        fail([f"a lift of {lift:.1%} over {base_rate:.1%} is no share of users"], 1)
    control, other = needed
    typer.echo(f"control {control:,} users, other arm {other:,}")


def _path(name: str) -> str:
    return f"/v1/experiments/{quote(name, safe='')}"


def _moment(text: str) -> str:
    return text[:16].replace("T", " ")


def _print(found: dict[str, Any]) -> None:
    console = Console()
    table = Table(title=f"{found['experiment']}, {found['status']}")
    for column in ("arm", "exposed", "clicking", "UCTR (95%)", "lift", "p", "", "p99", "fallbacks"):
        table.add_column(column, justify="left" if column in ("arm", "") else "right")
    for arm in found["arms"]:
        table.add_row(*_row(arm))
    console.print(table)
    if users := found["plan"]["users"]:
        needs = ", ".join(f"{name} {count:,}" for name, count in users.items())
        wanted = f"{found['plan']['lift']:.0%} with power {found['plan']['power']:.0%}"
        console.print(f"users that a lift of {wanted} takes: {needs}", highlight=False)
    for note in found["notes"]:
        console.print(f"note: {note}", highlight=False)


def _row(arm: dict[str, Any]) -> list[str]:
    clicking, compared = arm["clicking"], arm["clicking_vs_control"]
    rails = arm["guardrails"]
    return [
        f"{arm['name']} (control)" if arm["control"] else arm["name"],
        f"{arm['exposed_users']:,}",
        f"{clicking['users']:,}",
        f"{clicking['value']:.2%} ({clicking['low']:.2%} to {clicking['high']:.2%})"
        if clicking["value"] is not None
        else "",
        f"{compared['lift']:+.1%}" if compared and compared["lift"] is not None else "",
        f"{compared['adjusted_p_value']:.2g}" if compared else "",
        compared["verdict"] if compared else "",
        "" if rails["p99_ms"] is None else f"{rails['p99_ms']:,.1f} ms",
        "" if rails["fallback_share"] is None else f"{rails['fallback_share']:.2%}",
    ]
