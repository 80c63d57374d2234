"""Settings: where they come from, and how they fail."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.eligibility.filter import Filter
from service.redis_client import parse_cluster_url
from service.settings import Settings, SettingsInvalid, load_settings, settings_table

SECRET = "hunter2"


def test_the_environment_sets_and_options_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDREC_PORT", "81")
    monkeypatch.setenv("SIDREC_HOST", "::1")
    monkeypatch.setenv("SIDREC_ENGINE_OPTIONS", '{"device": "cpu"}')
    settings = load_settings({"port": 82, "bundle": None})
    assert (settings.port, settings.host) == (82, "::1")
    assert settings.engine_options == {"device": "cpu"}
    assert settings.bundle.parts[-4:] == ("model_store", "bundles", "demo", "1")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDREC_REDIS_URL", "")
    assert load_settings().redis_url is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "abc"),
        ("PORT", "70000"),
        ("ENGINE", "warp"),
        ("ENGINE_OPTIONS", "{device"),
        ("ENGINE_OPTIONS", "[1]"),
        ("BEAM_WIDTH", "513"),
        ("THREADS", "0"),
        ("LOG_LEVEL", "loud"),
        ("MAX_BODY_BYTES", "1MiB"),
        ("EXCLUDE_SEEN", "everything"),
        ("RULES", '{"stock"'),
        ("RULES", "[1]"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"SIDREC_{name}", value)
    with pytest.raises(SettingsInvalid) as caught:
        load_settings()
    [line] = caught.value.problems
    assert line.startswith((f"SIDREC_{name}={value!r}: ", f"SIDREC_{name}={value}: "))
    assert "\n" not in line


def test_a_mistake_within_a_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDREC_RULES", '{"not": {"price": {"gt": "much"}}}')
    monkeypatch.setenv("SIDREC_PURCHASE_TYPES", "order,,gift")
    with pytest.raises(SettingsInvalid) as caught:
        load_settings()
    kinds, rules = sorted(caught.value.problems)
    assert kinds.startswith("SIDREC_PURCHASE_TYPES='': 1: ")
    assert rules == "SIDREC_RULES='much': not.price.gt: must be a number"


def test_lists_and_rules_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDREC_PURCHASE_TYPES", "order, gift")
    monkeypatch.setenv("SIDREC_RULES", '{"stock": {"gt": 0}}')
    settings = load_settings()
    assert settings.purchase_types == ("order", "gift")
    assert settings.rules == Filter.model_validate({"stock": {"gt": 0}})


def test_a_bad_option_is_named_as_an_option() -> None:
    with pytest.raises(SettingsInvalid, match=r"^--port=70000: ") as caught:
        load_settings({"port": 70_000})
    assert len(caught.value.problems) == 1


def test_every_bad_value_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDREC_PORT", "abc")
    monkeypatch.setenv("SIDREC_HISTORY_LIMIT", "0")
    with pytest.raises(SettingsInvalid) as caught:
        load_settings()
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET}@host",
        f"redis://:{SECRET}@host:port",
        f"redis://:{SECRET}/x@host",
        f"redis://:{SECRET}@host?socket_timeout=soon",
    ],
)
def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SIDREC_REDIS_URL", url)
    with pytest.raises(SettingsInvalid) as caught:
        load_settings()
    [line] = caught.value.problems
    assert line.startswith("SIDREC_REDIS_URL=…: ")
    assert SECRET not in line
    assert caught.value.__context__ is None
    with pytest.raises(ValidationError) as raw:
        Settings()
    assert SECRET not in str(raw.value)


def test_a_good_secret_is_never_shown_either() -> None:
    settings = load_settings({"redis_url": f"redis://:{SECRET}@host:6379/1"})
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()}"
    assert SECRET not in settings.model_dump_json()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load_settings().port = 1  # type: ignore[misc]


def test_the_table_has_a_meaning_for_each_variable() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    for name, row in zip(Settings.model_fields, rows, strict=True):
        _, variable, default, meaning, _ = row.split("|")
        assert variable.strip() == f"`SIDREC_{name.upper()}`"
        assert meaning.strip() not in ("", "None")
        assert str(Path.home()) not in default
    assert "| `SIDREC_PORT` | `8000` | " in settings_table()
    assert "`model_store/bundles/demo/1`" in settings_table()


def test_the_page_has_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert settings_table() in page.read_text()


@pytest.mark.parametrize(
    ("url", "nodes"),
    [
        ("redis+cluster://one:7000,two:7001", [("one", 7000), ("two", 7001)]),
        ("redis+cluster://:secret@one,[::1]:7001", [("one", 6379), ("::1", 7001)]),
        ("rediss+cluster://name:p%40ss@one:7000/0", [("one", 7000)]),
    ],
)
def test_a_cluster_is_named_by_some_of_its_nodes(url: str, nodes: list[tuple[str, int]]) -> None:
    assert load_settings({"redis_url": url}).redis_url is not None
    given, options = parse_cluster_url(url)
    assert given == nodes
    assert options.get("ssl", False) is url.startswith("rediss")
    assert "host" not in options


@pytest.mark.parametrize(
    "url",
    ["redis+cluster://", "redis+cluster://a:7000/1", "http+cluster://a", "redis+cluster://a:x"],
)
def test_what_is_no_cluster_is_refused(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="redis_url=…: not the URL of a Redis"):
        load_settings({"redis_url": url})
