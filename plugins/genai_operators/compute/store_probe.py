"""Does this object store do what concurrency rests on? ``python -m genai_operators.compute.store_probe``.

Run in a pod by ``make kubernetes-check``, and by hand anywhere. Writes an object, reads it back, and lets eight writers
at a time race to create one: exactly one may win. Some S3-compatible servers let several (SeaweedFS before 4.17 did,
versitygw before August 2026): on such a store two attempts could both believe that they are the one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from genai_operators.exceptions import ConfigurationError, GenaiError
from genai_operators.store import Store

WRITERS = 8
ROUNDS = 5
CONTENT = b"written by the check\n"
EXIT_UNFIT = 78  # EX_CONFIG of sysexits.h


def probe(store: Store, path: str) -> None:
    """Write ``path`` and leave it there, for the other side to find.

    :raises ConfigurationError: the store does not keep what was written, or lets several create one object.
    :raises StoreUnavailable: it does not answer.
    """
    if not store.create(path, CONTENT):
        raise ConfigurationError(f"{store.uri_of(path)} exists already; choose another path")
    if store.get(path) != CONTENT:
        raise ConfigurationError(f"{store.uri_of(path)} holds something else than was just written")
    for number in range(1, ROUNDS + 1):
        _race(store, f"{path}.race-{number}")


def _race(store: Store, path: str) -> None:
    try:
        with ThreadPoolExecutor(WRITERS) as writers:
            winners = sum(writers.map(lambda writer: store.create(path, str(writer).encode()), range(WRITERS)))
        if winners != 1:
            raise ConfigurationError(
                f"{winners} of {WRITERS} writers created {store.uri_of(path)}: this store has no create-only writes "
                "(If-None-Match: *). Use one that has: AWS, GCS, Azure, MinIO, SeaweedFS from 4.17 on, a folder."
            )
    finally:
        store.delete(path)


def main(arguments: Sequence[str]) -> int:
    """Command line. Returns 0 when the store is fit."""
    parser = argparse.ArgumentParser(description="Check that an object store keeps create-only writes.")
    parser.add_argument("--store", required=True, help="URI of the store")
    parser.add_argument("--path", required=True, help="of an object that does not exist; it is left there")
    options = parser.parse_args(arguments)
    try:
        probe(Store.open(options.store), options.path)
    except GenaiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_UNFIT
    print(f"{options.store}: 1 of {WRITERS} writers won, in each of {ROUNDS} rounds")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
