"""Every knob of the service: typed, immutable, read from `SIDREC_*` variables, checked at start."""

import json
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.eligibility.filter import Filter
from service.eligibility.policy import Seen
from service.keys.key import Key

MAX_BEAM_WIDTH = 512
MAX_DEADLINE_MS = 600_000

_PREFIX = "SIDREC_"
# Beside this package, installed or not; importing it to ask would import torch.
_PACKAGES = Path(__file__).parent.parent


class SettingsInvalid(Exception):
    """Settings that cannot be used; `problems` has one line for each, naming key and value."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


def _json_object(value: Any) -> Any:
    """Decoded here and not by the settings library, whose message would hide the bad value."""
    return json.loads(value) if isinstance(value, str) else value


def _json_list(value: Any) -> Any:
    return tuple(json.loads(value)) if isinstance(value, str) else value


Weights = Annotated[dict[str, NonNegativeFloat], NoDecode, BeforeValidator(_json_object)]


def _comma_separated(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


EventType = Annotated[str, Field(min_length=1, max_length=32)]
EventTypes = Annotated[tuple[EventType, ...], NoDecode, BeforeValidator(_comma_separated)]
JsonObject = Annotated[dict[str, Any], NoDecode, BeforeValidator(_json_object)]
Keys = Annotated[tuple[Key, ...], NoDecode, BeforeValidator(_json_list)]
Rules = Annotated[Filter, NoDecode, BeforeValidator(_json_object)]


class Settings(BaseSettings):
    """Make one with `load_settings`; a test may call the class itself."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    bundle: Path = Field(
        _PACKAGES / "model_store" / "bundles" / "demo" / "1",
        description="Folder of the bundle, where there is no store",
    )
    store: str | None = Field(
        None,
        min_length=1,
        description="Folder or address (s3://…) of a store; the champion of a bundle in it is"
        " served, and other versions can be loaded",
    )
    model: str | None = Field(
        None,
        min_length=1,
        description="Name of the bundle in the store; unset takes the only one there",
    )
    max_models: int = Field(
        2, ge=1, description="Versions that may be loaded at once, the active one among them"
    )
    engine: Literal["torch", "vllm", "fake"] = Field(
        "torch", description="What searches: torch, vllm or fake"
    )
    engine_options: JsonObject = Field(
        {}, description='Options of the engine, a JSON object such as {"device": "cpu"}'
    )
    threads: int | None = Field(
        None, ge=1, description="Threads of one torch operation; unset leaves torch's choice"
    )
    beam_width: int = Field(
        20, ge=1, le=MAX_BEAM_WIDTH, description="Beams of a request that names no width"
    )
    keys: Keys | None = Field(
        None, description="API keys, a JSON list of objects with the fields of `sidrec keys new`"
    )
    keys_file: Path | None = Field(
        None, description="File of API keys, read again whenever it changes; see docs/security.md"
    )
    allow_anonymous: bool = Field(
        False,
        description="Listen beyond loopback without any key, where something else keeps strangers"
        " out",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    redis_url: SecretStr | None = Field(
        None,
        description="Redis of the histories, or a Redis Cluster as redis+cluster://host:port,…;"
        " unset starts a private one in the state folder",
    )
    redis_timeout_ms: int = Field(250, ge=1, description="Longest wait for a reply from Redis")
    redis_wait_replicas: int = Field(
        0,
        ge=0,
        description="Replicas of that Redis that must have an event, or any other change, before it"
        " is acknowledged; see docs/scaling.md",
    )
    state_dir: Path = Field(Path(".sidrec"), description="Folder of the private Redis")
    history_limit: int = Field(200, ge=1, description="Events kept of a user, the latest ones")
    history_ttl_days: int = Field(
        90, ge=0, description="Days after a user's last event until all are forgotten; 0: never"
    )
    history_max_age_days: int = Field(
        0, ge=0, description="Days until an event is forgotten, however active its user; 0: never"
    )
    popular_half_life_h: float = Field(
        168, ge=0.01, description="Hours in which the weight of an event for popularity halves"
    )
    popular_weights: Weights = Field(
        {},
        description='Weight of an event type for popularity, such as {"purchase": 3,'
        ' "impression": 0}; 1 for any other',
    )
    popular_refresh_ms: int = Field(
        2000, ge=10, description="Time between two looks at what is popular now"
    )
    deadline_ms: int = Field(
        0,
        ge=0,
        le=MAX_DEADLINE_MS,
        description="Time for an answer where the request does not say; 0: whatever it takes",
    )
    exclude_seen: Seen = Field(
        "purchased",
        description="What of a user's past an answer leaves out where the request does not say:"
        " nothing, purchased or history",
    )
    purchase_types: EventTypes = Field(
        ("purchase",), description="Types of events that count as purchased, comma-separated"
    )
    rules: Rules | None = Field(
        None,
        description="A filter that every item of every answer satisfies, such as"
        ' {"stock": {"gt": 0}}',
    )
    filter_cache_mb: int = Field(
        64, ge=1, description="Memory for compiled filters: 4 bytes an item and filter"
    )
    max_in_flight: int = Field(
        512, ge=1, description="Recommendations worked on at once; more are refused with 503"
    )
    max_wait_ms: int = Field(
        5000,
        ge=0,
        description="Longest time from joining the engine's queue to the end of a search: whoever"
        " would take longer is refused with 503; 0: any time",
    )
    max_batch: int = Field(64, ge=1, description="Most recommendations in one request")
    cache_ttl_ms: int = Field(
        0, ge=0, description="Milliseconds for which equal requests get the same answer; 0: never"
    )
    catalogue: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Name of the catalogue whose changes are shared by all that use the Redis",
    )
    catalogue_poll_ms: int = Field(
        200, ge=10, le=10_000, description="Time between two looks for changes by other processes"
    )
    max_items: int = Field(1000, ge=1, description="Most changes of items in one request")
    playground: bool = Field(True, description="Serve a page to try the model at /")
    max_body_bytes: int = Field(1 << 20, ge=1, description="Largest request body")
    request_timeout_s: float = Field(
        30,
        gt=0,
        description="Longest time that a request may take to arrive, its body included; then 408",
    )
    max_events: int = Field(1000, ge=1, description="Most events in one request")
    future_tolerance_s: int = Field(
        86_400, ge=0, description="How far in the future an event's timestamp may lie"
    )
    event_loop: Literal["uvloop", "asyncio"] = Field(
        "uvloop", description="What drives connections: uvloop or asyncio"
    )
    gc_freeze: bool = Field(
        True, description="Spare what is loaded at start from garbage collection"
    )
    log_format: Literal["json", "console"] = Field("json", description="Form of the log lines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least important level that is logged"
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/?#]+",
        description="Where traces are sent by OTLP over HTTP, such as http://collector:4318; unset:"
        " `OTEL_EXPORTER_OTLP_ENDPOINT`, else nowhere",
    )
    log_user_ids: bool = Field(
        False, description="Write user ids into log lines as they are, not as a keyed hash"
    )
    log_user_key: SecretStr | None = Field(
        None, description="Key of that hash; unset takes a random one at each start"
    )
    shutdown_timeout_s: int = Field(
        30, ge=0, description="How long requests in flight may take to finish at shutdown"
    )

    @property
    def keyed(self) -> bool:
        """Whether whoever asks needs a key."""
        return self.keys is not None or self.keys_file is not None

    @field_validator("host")
    @classmethod
    def _not_for_strangers(cls, host: str, before: ValidationInfo) -> str:
        guarded = ("keys", "keys_file", "allow_anonymous")
        if not _loopback(host) and not any(before.data.get(name) for name in guarded):
            raise ValueError(
                "without API keys it must be of this machine alone, such as 127.0.0.1: set"
                " SIDREC_KEYS_FILE, or SIDREC_ALLOW_ANONYMOUS=true where something else keeps"
                " strangers out"
            )
        return host

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.store is not None and "bundle" in self.model_fields_set:
            raise ValueError(
                "SIDREC_STORE and SIDREC_BUNDLE (or --bundle) are both set: a store has its own"
                " champion served, a bundle is served alone"
            )
        if self.model is not None and self.store is None:
            raise ValueError("SIDREC_MODEL is the name of a bundle in SIDREC_STORE, which is unset")
        return self

    @field_validator("redis_url")
    @classmethod
    def _reachable(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            from service.redis_client import check_url

            try:
                check_url(url.get_secret_value())
            except ValueError:  # its message may quote a part of the password
                raise ValueError(
                    "not the URL of a Redis, such as redis://host:6379/0, or of a cluster, such as"
                    " redis+cluster://host:6379,other:6379"
                ) from None
        return url


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(options: Mapping[str, Any] | None = None) -> Settings:
    """From the environment, overridden by command line `options` that are not None.

    Raises `SettingsInvalid` with a line for each value that cannot be used.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = [_line(details, given) for details in error.errors()]
    raise SettingsInvalid(problems)  # outside, for the cause would show the values of secrets


def settings_table() -> str:
    """All settings as a Markdown table: variable, default, meaning."""
    rows = [
        f"| `{_PREFIX}{name.upper()}` | {_shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows])


def _line(details: ErrorDetails, options: Mapping[str, Any]) -> str:
    if not details["loc"]:  # of several settings together, and names them
        return details["msg"].removeprefix("Value error, ")
    name = str(details["loc"][0])
    key = f"--{name}" if name in options else f"{_PREFIX}{name.upper()}"
    # In the place of a key's digest may stand the key itself.
    secret = name == "keys" or Settings.model_fields[name].annotation == SecretStr | None
    value = "…" if secret else repr(details["input"])
    within = ".".join(map(str, details["loc"][1:]))
    message = details["msg"].removeprefix("Value error, ")
    return f"{key}={value}: {within}: {message}" if within else f"{key}={value}: {message}"


def _shown(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, Path) and default.is_relative_to(_PACKAGES):
        default = default.relative_to(_PACKAGES)
    if isinstance(default, tuple):
        default = ",".join(default)
    return f"`{json.dumps(default) if isinstance(default, dict) else default}`"
