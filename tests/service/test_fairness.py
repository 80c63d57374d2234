"""Two keys at a real service: one asks for far more than there is, the other for one by one."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from tests.service.keys.made import bearer, key
from tests.service.test_api import HISTORY
from tests.service.test_app_process import Serve, serve

__all__ = ["serve"]

ASK = {"history": HISTORY}
PATH = "/v1/recommendations"


def ask(client: httpx.Client, secret: str, times: int) -> Counter[int]:
    """How often which status, one after the other."""
    asked = (client.post(PATH, json=ASK, headers=bearer(secret)) for _ in range(times))
    return Counter(response.status_code for response in asked)


@contextmanager
def flood(client: httpx.Client, secret: str, callers: int) -> Iterator[Counter[int]]:
    """Meanwhile so many callers ask again and again."""
    over, statuses = threading.Event(), Counter[int]()

    def call() -> None:
        while not over.is_set():
            statuses.update(ask(client, secret, 1))
            time.sleep(0.005)

    with ThreadPoolExecutor(callers) as pool:
        calls = [pool.submit(call) for _ in range(callers)]
        try:
            while not statuses[503]:
                time.sleep(0.01)
            yield statuses
        finally:
            over.set()
        for one in calls:
            one.result()


def test_a_key_that_asks_for_too_much_takes_nothing_from_another(serve: Serve) -> None:
    keys = [key("greedy", "greedy", "read"), key("modest", "modest", "read")]
    process = serve(
        *("--engine", "fake"),
        engine_options='{"delay_ms": 20}',
        max_wait_ms=1,  # which leaves the two searches that may always be under way
        keys=json.dumps([one.model_dump(mode="json", exclude_none=True) for one in keys]),
    )
    with process.client() as client:
        ask(client, "modest", 3)
        with flood(client, "greedy", 12) as greedy:
            assert ask(client, "modest", 40) == {200: 40}
            # The same from the key whose part is used up.
            assert ask(client, "greedy", 40)[503] > 10
        assert greedy[200] > 10
        assert greedy[503] > 10
        assert set(greedy) == {200, 503}
        assert ask(client, "greedy", 5) == {200: 5}
