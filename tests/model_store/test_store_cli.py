"""`sidrec store …`, as one types it; and what `diff` finds."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from model_store.diff import compare_bundles
from model_store.prompt import PromptTemplate
from model_store.sid import infer_spec
from model_store.store import Store, create_bundle
from service.cli import cli
from tests.tiny import random_items, write_items, write_model

ITEMS = random_items(30, (4, 4), seed=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three versions: the second has another prompt and metrics, the third other items."""
    folder = tmp_path_factory.mktemp("store")
    model = write_model(folder / "model", infer_spec([item["sid"] for item in ITEMS]))
    moved = [ITEMS[0] | {"sid": ITEMS[1]["sid"]}, *ITEMS[1:-2], ITEMS[-1] | {"item_id": "new"}]
    store = Store(folder / "store")
    for items, text, hits in (
        (ITEMS, "clicked {history}", None),
        (ITEMS, "bought {history}", 0.25),
        (moved, "bought {history}", 0.5),
    ):
        create_bundle(
            store,
            name="shop",
            model=model,
            items=write_items(items, folder / "items.jsonl"),
            prompt=PromptTemplate(text=text),
            metrics={"shop model": {"HR@10": hits}} if hits else None,
        )
    return store


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["store", *map(str, arguments)], env={"COLUMNS": "120"})


def test_diff_of_items_prompt_and_metrics(store: Store) -> None:
    paths = [store.path("shop", version) for version in (1, 2, 3)]
    one_two, two_three = (compare_bundles(*paths[i : i + 2]) for i in (0, 1))
    assert one_two.settings == {"prompt.text": ("clicked {history}", "bought {history}")}
    assert (one_two.added, one_two.removed, one_two.moved, one_two.kept) == ([], [], {}, 30)
    assert one_two.metrics == {"shop model.HR@10": (None, 0.25)}
    assert two_three.settings == {}
    assert two_three.added == ["new"]
    assert sorted(two_three.removed) == ["item-28", "item-29"]
    assert two_three.moved == {"item-0": (ITEMS[0]["sid"], ITEMS[1]["sid"])}
    assert two_three.metrics == {"shop model.HR@10": (0.25, 0.5)}


def test_diff_is_shown(store: Store) -> None:
    shown = run("diff", store.root, "shop@1", "shop@3")
    assert shown.exit_code == 0
    for expected in ("prompt.text", f"item-0: {ITEMS[0]['sid']}", "shop model.HR@10", "0.5000"):
        assert expected in shown.stdout


def test_promote_list_rollback_gc(store: Store) -> None:
    assert run("promote", store.root, "shop@1").stdout == "shop@champion is version 1\n"
    promoted = run("promote", store.root, "shop@3")
    assert promoted.stdout == "shop@champion is version 3; a rollback goes to 1\n"
    listed = run("list", store.root).stdout
    assert "champion: promote" in listed
    assert run("fetch", store.root, "shop@champion").stdout.strip() == str(store.path("shop", 3))
    assert run("gc", store.root, "shop", "--keep", 1).stdout == "removed 2\n"
    assert run("rollback", store.root, "shop").stdout == "shop@champion is version 1\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("promote", "STORE", "shop@9"), "no version 9"),
        (("rollback", "STORE", "shop", "--alias", "hero"), "no alias 'hero'"),
        (("diff", "STORE", "shop", "nobody"), "no bundle 'nobody'"),
        (("gc", "memory://nowhere", "shop"), "only a local store"),
        (("list", "nowhere://x"), "nowhere"),
    ],
)
def test_mistakes_are_one_line(store: Store, arguments: tuple[str, ...], complaint: str) -> None:
    result = run(*(str(store.root) if part == "STORE" else part for part in arguments))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert complaint in result.stderr


def test_a_store_without_the_named_folder_is_empty(tmp_path: Path) -> None:
    assert run("list", tmp_path / "nothing").exit_code == 0
    assert not (tmp_path / "nothing").exists()
