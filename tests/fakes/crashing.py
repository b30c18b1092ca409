"""A worker or a triggerer as a process of its own, that dies where a test says.

``python -m tests.fakes.crashing worker|triggerer <arguments as JSON> [<when> <object>]``: ``worker`` joins and takes
the first step, as an operator does on this machine before it defers, and in a cluster when it waits on its worker;
``triggerer`` does what the trigger does until the workload settled, in a cluster claim and create included. With
``before claim.json`` (or ``after``) the process kills itself, with SIGKILL, right before (after) it writes such an
object; with ``during launch`` while the supervisor is being started; with ``after start`` once all of a worker's work
is done. In a cluster also ``before create``, ``during create`` (the request is sent, its answer not read) and ``after
create``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from genai_operators.compute import attempts, local
from genai_operators.compute.contract import Workload
from genai_operators.compute.kubernetes.api import KubernetesApi
from genai_operators.compute.owners import Owner
from genai_operators.compute.watch import Poll, WorkloadSubject
from genai_operators.exceptions import GenaiError
from genai_operators.store import Store


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash(when: str, what: str) -> None:
    """Arrange the death of this process."""
    if what == "create":
        KubernetesApi.create = _dying_create(KubernetesApi.create, when)  # type: ignore[method-assign]
    elif when == "during":
        local.subprocess = _DyingSubprocess  # type: ignore[attr-defined]
    elif what != "start":
        for name in ("put", "create"):
            setattr(Store, name, _dying(getattr(Store, name), when, what))


def _dying(write: Callable[..., Any], when: str, what: str) -> Callable[..., Any]:
    def write_or_die(self: Store, path: str, data: bytes) -> Any:
        if what in path and when == "before":
            die()
        written = write(self, path, data)
        if what in path and when == "after":
            die()
        return written

    return write_or_die


def _dying_create(create: Callable[..., Any], when: str) -> Callable[..., Any]:
    def create_or_die(self: KubernetesApi, path: str, body: Any) -> Any:
        if when == "before":
            die()
        if when == "during":
            import urllib3

            urllib3.connection.HTTPConnection.getresponse = lambda _self: die()  # type: ignore[assignment]
        create(self, path, body)
        die()

    return create_or_die


class _DyingSubprocess:
    """In place of :mod:`subprocess` in the local backend: starts the supervisor and dies before it is up."""

    DEVNULL, SubprocessError = subprocess.DEVNULL, subprocess.SubprocessError

    @staticmethod
    def run(command: list[str], *, timeout: float, check: bool, **options: Any) -> None:
        subprocess.Popen(command, **options)
        die()


def worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """Join the workload and start it; the arguments of its subject."""
    store = Store.open(arguments["store"])
    workload = Workload(kind=arguments["kind"], params=arguments["params"], nonce=arguments.get("nonce"))
    joined = attempts.join(store, workload, Owner.from_json(arguments["owner"]))
    subject_arguments = {
        "store": store.uri,
        "directory": joined.directory,
        "backend": arguments["backend"],
        "owner": arguments["owner"],
        "after": joined.after,
        "limits": arguments.get("limits", {}),
        "ladder": arguments.get("ladder", []),
    }
    WorkloadSubject(**subject_arguments).start()
    return subject_arguments


def triggerer(arguments: dict[str, Any]) -> dict[str, Any]:
    """Wait for the workload, printing what a task log would show."""
    subject = WorkloadSubject(**arguments)
    while True:
        poll = look(subject)
        for line in poll.lines:
            print(line, flush=True)
        if poll.settled is not None:
            return poll.settled
        if not poll.more:
            time.sleep(0.05)


def look(subject: WorkloadSubject) -> Poll:
    """One look, as the trigger does it: what a retry helps against is looked at again."""
    try:
        return subject.poll()
    except GenaiError as error:
        if not error.retry_helps:
            raise
        return Poll(lines=[f"{type(error).__name__}: {error}; looking again"])


def main(role: str, arguments: str, *point: str) -> None:
    if point:
        crash(*point)
    answer = {"worker": worker, "triggerer": triggerer}[role](json.loads(arguments))
    if point == ("after", "start"):
        die()
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
