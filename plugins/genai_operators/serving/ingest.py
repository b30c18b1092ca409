"""The ``ingest`` program: publishes the gateway's traffic in the store, rotates its log, enforces the retention.

python -m genai_operators.serving.ingest --directory D --store URI --admin-url http://127.0.0.1:9901
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from genai_operators.exceptions import GatewayUnavailable, StoreUnavailable
from genai_operators.serving.admin import Admin
from genai_operators.serving.transfer import Ingest
from genai_operators.store import Store

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
ROTATE_AGE_S = 60.0
RETENTION_INTERVAL_S = 300.0
MAX_BACKOFF_S = 30.0


def _stop_on_signal() -> threading.Event:
    """Set by SIGTERM and SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def run(ingest: Callable[[], Ingest], *, interval_s: float, rotate_age_s: float, stop: threading.Event) -> None:
    """Ingest until told to stop. A store that is away is waited for; nothing is lost meanwhile.

    :param ingest: makes one that knows its place.
    """
    backoff = interval_s
    while not stop.is_set():
        try:
            _run(ingest(), interval_s=interval_s, rotate_age_s=rotate_age_s, stop=stop)
        except StoreUnavailable as error:
            log.warning("%s; trying again in %.0f s", error, backoff)
            stop.wait(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF_S)


def _run(ingest: Ingest, *, interval_s: float, rotate_age_s: float, stop: threading.Event) -> None:
    retention_at = -RETENTION_INTERVAL_S
    while not stop.is_set():
        ingest.step(now=time.time())
        try:
            ingest.rotate_if_due(age_s=rotate_age_s)
        except GatewayUnavailable as error:
            log.info("The log was rotated; the gateway opens the new one when it is back (%s)", error)
        if time.monotonic() - retention_at > RETENTION_INTERVAL_S:
            ingest.delete_old_text(now=time.time())
            retention_at = time.monotonic()
        # One look an interval makes batches of a useful size; only a backlog is worked off without a pause.
        if not ingest.is_behind():
            stop.wait(interval_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """The ``ingest`` program of the platform."""
    parser = argparse.ArgumentParser(prog="genai_operators.serving.ingest", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="the gateway's own folder")
    parser.add_argument("--store", required=True, help="URI of the object store")
    parser.add_argument("--admin-url", required=True, help="Envoy's admin interface, to rotate the log")
    parser.add_argument("--interval", type=float, default=INTERVAL_S, help="seconds between two looks")
    parser.add_argument("--rotate-age", type=float, default=ROTATE_AGE_S, help="seconds that a log file lasts")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    directory = options.directory.resolve()
    with (directory / "ingest.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.error("Another ingest works on %s; end it first", directory)
            return 1
        store, admin = Store.open(options.store), Admin(options.admin_url)
        log.info("Ingesting %s into %s", directory, store.uri)
        run(
            lambda: Ingest(directory=directory, store=store, admin=admin),
            interval_s=options.interval,
            rotate_age_s=options.rotate_age,
            stop=_stop_on_signal(),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
