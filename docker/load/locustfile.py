"""Locust's users do what those of `sidrec load` do: the same sessions, from the same module.

    locust -f docker/load/locustfile.py --host http://127.0.0.1:8000 --users 100 --spawn-rate 20

A user of locust is one session after the other, and waits for its answers: a service that stalls is
asked less. For latencies to publish, and for a rate, take `sidrec load`; this is for who has locust
already, its web page, or its workers on many machines. A key comes from SIDREC_KEY.
"""

import os
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.exception import StopTest

from bench.connection import NotServing, authorization, store_events
from bench.load.traffic import RECOMMENDATIONS, Mix, Session, Traffic
from bench.load.wares import from_file, from_service
from bench.users import Users

_KEY = os.environ.get("SIDREC_KEY") or None
_MOST_ITEMS = 10_000
_DEFAULTS = Mix()


@events.init_command_line_parser.add_listener
def options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("what users do")
    group.add_argument("--items", default="", help="JSON lines; else what the service lists")
    group.add_argument("--known-users", type=int, default=2000, help="with a history at first")
    group.add_argument("--event-share", type=float, default=_DEFAULTS.events, help="of requests")
    group.add_argument("--filter-share", type=float, default=_DEFAULTS.filters)
    group.add_argument("--cold-share", type=float, default=_DEFAULTS.cold, help="of sessions")
    group.add_argument("--think", type=float, default=_DEFAULTS.think_s, help="seconds, mean")
    group.add_argument("--k", type=int, default=_DEFAULTS.k, help="items of an answer")


@events.test_start.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Histories are stored before anybody comes."""
    wanted = environment.parsed_options
    assert wanted is not None
    assert environment.host is not None
    try:
        if wanted.items:
            wares = from_file(Path(wanted.items))
        else:
            wares = from_service(environment.host, _KEY, _MOST_ITEMS)
        crowd = Users(wares.items, wanted.known_users, name="load", exponent=0.6)
        store_events(environment.host, crowd.events(100), _KEY)
    except (NotServing, OSError, ValueError) as error:
        environment.process_exit_code = 1
        raise StopTest(str(error)) from error
    mix = Mix(
        wanted.event_share,
        wanted.filter_share,
        wanted.cold_share,
        think_s=wanted.think,
        k=wanted.k,
    )
    name = f"locust-{time.time_ns():x}"
    Shopper.traffic = Traffic(crowd, wares.filters, mix, seed=name, name=name)


class Shopper(FastHttpUser):
    """Comes, does what a session holds, and comes again as somebody else."""

    traffic: Traffic
    _session: Session | None = None

    def wait_time(self) -> float:
        return self.traffic.chance.expovariate(1 / self.traffic.mix.think_s)

    @task
    def next(self) -> None:
        if self._session is None or self._session.over:
            self._session = self.traffic.session()
        call = self._session.next()
        headers = {"Content-Type": "application/json", **authorization(_KEY)}
        with self.client.post(
            call.path, data=call.body, headers=headers, catch_response=True
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}")
            elif call.path == RECOMMENDATIONS:
                self._session.shown([item["item_id"] for item in answer.json()["items"]])
