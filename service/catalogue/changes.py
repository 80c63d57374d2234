"""Changes to a catalogue in Redis: durable, numbered, and shared by every replica.

Per item one record of what was decided of it last, so that the whole grows with the items and not
with the changes; a sorted set numbers them, and who knows the changes up to a number asks for those
behind it. A record knows attributes and no bundle. SIDs stand beside it, for each bundle its own.
All keys of a catalogue share a slot of a Redis Cluster.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.errors import CatalogueUnavailable
from service.redis_calls import Script, send, slot, text, unavailable
from service.redis_client import RedisClient
from service.redis_command import Command

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Record:
    """What was decided of an item last.

    attributes: those that were given, the title among them; of an item that the bundle knows, the
                others are as the bundle has them
    sid:        in the words of the bundle in service; None where it has none yet, or needs none
    """

    item_id: str
    attributes: Mapping[str, Any]
    deleted: bool = False
    sid: str | None = None


class VersionLost(Exception):
    """Redis knows fewer changes than were read from it: it has lost some."""


class Changes:
    """The changes to the catalogue `name`, with the SIDs of `bundle` ("name/version").

    Every method raises `CatalogueUnavailable` when Redis does not do its part; a write may have
    been done then, or not.
    """

    def __init__(self, client: RedisClient, name: str, bundle: str) -> None:
        self._client = client
        prefix = f"sidrec:catalogue:{slot(name)}"
        self._keys = (f"{prefix}:items", f"{prefix}:order", f"{prefix}:sids:{bundle}")
        self._write = Script("catalogue/changes_write.lua")
        self._read = Script("catalogue/changes_read.lua")

    async def read(self, since: int) -> tuple[list[Record], int]:
        """Up to `PAGE` changes behind the version `since`, and the version that they lead to.

        Raises `VersionLost` where there is no such version.
        """
        with unavailable(CatalogueUnavailable):
            [answer] = await self._read.run(self._client, [(self._keys, [str(since), str(PAGE)])])
        try:
            version, changes = answer
            latest = int(float(text(version)))
            # A full page takes milliseconds, for which requests would wait.
            records, reached = (
                ([], since) if changes is None else await asyncio.to_thread(_page, text(changes))
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise CatalogueUnavailable("changes do not hold what sidrec wrote") from error
        if latest < since:
            raise VersionLost(f"version {since} was read, and now there is only {latest}")
        return records, reached

    async def write(self, version: int, records: Sequence[Record]) -> int | None:
        """All of them or none; the version after. None where somebody else wrote behind
        `version`: read that first."""
        arguments = [str(version), await asyncio.to_thread(_changes, records)]
        with unavailable(CatalogueUnavailable):
            [after] = await self._write.run(self._client, [(self._keys, arguments)], kept=True)
        if not isinstance(after, int):
            raise CatalogueUnavailable(f"Redis answered {after!r} instead of a number")
        return after if after >= 0 else None

    async def claim(self, sids: Mapping[str, str]) -> dict[str, str]:
        """Gives items the SIDs of this bundle, where nobody was faster; what they have now."""
        key = self._keys[2]
        claims = [Command(key, ("HSETNX", key, item_id, sid)) for item_id, sid in sids.items()]
        with unavailable(CatalogueUnavailable):
            *_, found = await send(
                self._client, [*claims, Command(key, ("HMGET", key, *sids))], kept=True
            )
        return dict(zip(sids, map(text, found), strict=True))


def with_sid(record: Record, sid: str) -> Record:
    return replace(record, sid=sid)


def _page(changes: str) -> tuple[list[Record], int]:
    """What the script answers, and the number of the last change."""
    fields = json.loads(changes)
    rows = [fields[i : i + 4] for i in range(0, len(fields), 4)]
    return [_record(row[0], row[2], row[3] or None) for row in rows], int(float(rows[-1][1]))


def _record(item_id: str, document: str, sid: str | None) -> Record:
    values = json.loads(document)
    return Record(item_id, values.get("attributes", {}), values.get("deleted", False), sid)


def _changes(records: Sequence[Record]) -> str:
    """What the script takes."""
    fields: list[str] = []
    for record in records:
        values = {"deleted": True} if record.deleted else {"attributes": record.attributes}
        fields += [record.item_id, _json(values), record.sid or ""]
    return _json(fields)


def _json(values: object) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
