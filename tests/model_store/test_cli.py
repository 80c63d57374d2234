"""`sidrec bundle …`, as one types it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from model_store.bundle import Bundle
from model_store.sid import infer_spec
from service.cli import cli
from tests.tiny import random_items, write_items, write_model

ITEMS = random_items(60, (4, 4, 4), extra_share=0.3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(
        tmp_path_factory.mktemp("cli") / "model", infer_spec([item["sid"] for item in ITEMS])
    )


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["bundle", *map(str, arguments)])


def create(folder: Path, model: Path, template: str, *more: object) -> Result:
    (folder / "prompt.txt").write_text(template)
    items = write_items(ITEMS, folder / "items.jsonl")
    return run(
        "create",
        *("--model", model, "--items", items, "--template", folder / "prompt.txt"),
        *("--name", "shop", "--out", folder / "store"),
        *more,
    )


def test_create_then_validate_then_inspect(tmp_path: Path, model: Path) -> None:
    made = create(tmp_path, model, "User {profile} clicked {history}, next: \n")
    assert made.exit_code == 0
    path = Path(made.stdout.strip())
    assert path == tmp_path / "store" / "shop" / "1"
    assert Bundle.load(path).manifest.prompt.text == "User {profile} clicked {history}, next: "

    assert run("validate", path).exit_code == 0
    shown = run("inspect", path)
    assert shown.exit_code == 0
    bundle = Bundle.load(path)
    for expected in ("shop 1", "Qwen2ForCausalLM", "4 (extra)", f"{len(set(bundle.sids))} "):
        assert expected.strip() in shown.stdout


def test_separator_and_profile(tmp_path: Path, model: Path) -> None:
    field = {"name": "age", "text": "aged {}", "values": ["20"], "unknown": "unknown"}
    (tmp_path / "profile.json").write_text(json.dumps([field]))
    made = create(
        tmp_path,
        model,
        "{profile}: {history}",
        *("--separator", " then ", "--profile", tmp_path / "profile.json"),
    )
    prompt = Bundle.load(made.stdout.strip()).manifest.prompt
    assert prompt.render(["<a_1>", "<a_2>"], {"age": "20"}) == "aged 20: <a_1> then <a_2>"
    assert prompt.render(["<a_1>"], {"age": "99"}) == "aged unknown: <a_1>"


def test_cold_starts_are_declared(tmp_path: Path, model: Path) -> None:
    for more, shown in (((), "not trained on"), (("--cold",), "asked by profile and scene")):
        path = create(tmp_path, model, "{profile}: {history}", *more).stdout.strip()
        manifest = json.loads((Path(path) / "manifest.json").read_text())
        # What knows nothing of it reads the bundles that do not have it.
        assert ("cold" in manifest["prompt"]) == Bundle.load(path).cold == bool(more)
        assert shown in run("inspect", path).stdout


@pytest.mark.parametrize(
    ("template", "complaint"),
    [("no place for it", "{history}"), ("{history} and {history}", "exactly once")],
)
def test_a_bad_template_is_refused(
    tmp_path: Path, model: Path, template: str, complaint: str
) -> None:
    made = create(tmp_path, model, template)
    assert made.exit_code == 1
    assert complaint in made.stderr
    assert not (tmp_path / "store" / "shop").exists()


def test_missing_files_are_named(tmp_path: Path, model: Path) -> None:
    made = create(tmp_path, tmp_path / "nowhere", "{history}")
    assert made.exit_code == 1
    assert "config.json" in made.stderr
    assert "Traceback" not in made.output


def test_validate_says_each_problem_on_a_line(tmp_path: Path, model: Path) -> None:
    path = Path(create(tmp_path, model, "{history}").stdout.strip())
    (path / "model" / "config.json").unlink()
    (path / "catalogue.parquet").write_bytes(b"nothing")
    (path / "stray.pkl").write_bytes(b"x")
    for command in ("validate", "inspect"):
        result = run(command, path)
        assert result.exit_code == 1
        lines = result.stderr.splitlines()
        assert len(lines) == 3
        assert any("stray.pkl" in line and "pickle" in line for line in lines)
        assert any("config.json is missing" in line for line in lines)
        assert any("catalogue.parquet has 7 bytes" in line for line in lines)
