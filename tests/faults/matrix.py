"""The rows of the fault matrix: each fault and what is promised under it, in one place."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- faults: written by `make faults` -->", "<!-- end of faults -->"

ANSWERS_GO_ON = "Recommendations go on"


@dataclass(frozen=True, slots=True)
class Row:
    """`fault` is what is done, `promise` what holds all the same."""

    fault: str
    promise: str


ROWS: Mapping[str, Row] = {
    "redis_killed": Row(
        "Redis killed with -9 and started again",
        f"{ANSWERS_GO_ON} with popular items and the reason; events are refused with 503 and"
        " Retry-After; no acknowledged event is lost",
    ),
    "redis_stopped": Row(
        "Redis stopped with SIGSTOP: it hangs, its connections stay open",
        "The same, each answer within the timeout for Redis and what waits before it",
    ),
    "redis_out_of_memory": Row(
        "Redis out of memory (`maxmemory` with `noeviction`)",
        f"{ANSWERS_GO_ON} by the model, for histories can be read; events are refused with 503 and"
        " Retry-After; no acknowledged event is lost",
    ),
    "redis_read_only": Row(
        "Redis read-only: it has become a replica",
        f"{ANSWERS_GO_ON} by the model, for histories can be read; events are refused with 503 and"
        " Retry-After; no acknowledged event is lost",
    ),
    "redis_emptied": Row(
        "Redis started again without its data",
        f"{ANSWERS_GO_ON}, by what comes after; nothing is promised of what that Redis had",
    ),
    "redis_slow": Row(
        "Redis slower than its timeout (400 ms each way)",
        f"{ANSWERS_GO_ON} with popular items and the reason; a batch of events that was refused may"
        " be in already, and repeating it counts nothing twice",
    ),
    "redis_disk_full": Row(
        "Disk full under Redis",
        f"{ANSWERS_GO_ON} by the model; events are refused with 503 and Retry-After until there is"
        " room; then no acknowledged event is missing, not even after kill -9 of that Redis",
    ),
    "own_redis_killed": Row(
        "The private Redis of a service without SIDREC_REDIS_URL killed with -9",
        "The service starts it again by itself; no acknowledged event is lost",
    ),
    "engine_thread_dies": Row(
        "The engine's thread dies under load",
        "Every request is answered, from then on with popular items and the reason; /readyz says"
        " 503, so that nobody is sent here; /livez stays true",
    ),
    "one_query_of_a_batch_raises": Row(
        "The engine raises on one query of a batch",
        "That one gets popular items and the reason, all others the model's answers",
    ),
    "service_killed": Row(
        "The service killed with -9 in the middle of event batches",
        "Every acknowledged event is there after the next start; repeating all batches counts"
        " nothing twice",
    ),
    "terminated_at_full_load": Row(
        "SIGTERM at full load",
        "Every request that had begun is answered, and the exit code is 0",
    ),
    "store_disk_full": Row(
        "Disk full under the store of bundles",
        "Publishing fails with one line and leaves nothing behind; answers go on; with room again"
        " the same command succeeds",
    ),
    "bundle_damaged": Row(
        "Files of bundles changed and cut to nothing on disk while serving",
        "Answers stay the same; loading the damaged version is refused with 422, naming the files",
    ),
    "slow_senders": Row(
        "200 clients that send a byte at a time",
        "Everybody else is answered as before, and so are they, once they have asked",
    ),
    "clients_never_read": Row(
        "20 clients that ask 300 times each on one connection and never read",
        "Everybody else is answered as before; the memory for them is bounded; their work ends"
        " when they go",
    ),
    "idle_connections": Row(
        "2,000 idle connections, with a soft limit of 1,024 open files",
        "Everybody else is answered as before",
    ),
}


def table(seen: Mapping[str, str]) -> str:
    """The matrix in Markdown."""
    lines = ["| fault | promised | seen | again by |", "| --- | --- | --- | --- |"]
    for name, row in ROWS.items():
        was = seen.get(name, "not run")
        lines.append(f"| {row.fault} | {row.promise} | {was} | `make faults ROW={name}` |")
    return "\n".join(lines)


def written(document: Path) -> dict[str, tuple[str, str, str]]:
    """Fault, promise and what was seen of each row of a document's table, by name."""
    pattern = r"^\| (.+?) \| (.+?) \| (.+?) \| `make faults ROW=(\w+)` \|$"
    found = re.findall(pattern, document.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (fault, promise, seen) for fault, promise, seen, name in found}


def write(document: Path, seen: Mapping[str, str]) -> None:
    """Puts the table between the markers of a document; a row that did not run, for want of root or
    of a program or because others were asked for, stays as it was."""
    before = {name: was for name, (_, _, was) in written(document).items()}
    text = document.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    whole = f"{head}{BEGIN}\n{table({**before, **seen})}\n{END}{tail}"
    document.write_text(whole, encoding="utf-8")
