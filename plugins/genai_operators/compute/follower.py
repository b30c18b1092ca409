"""The first process of each of several nodes. On the first it is the supervisor; the others only follow.

A follower keeps no records: it finds its scratch folder, sets the workload's variables and becomes the workload
(:mod:`genai_operators.workloads.distributed`). When the first node ends, the platform ends the followers.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence

from genai_operators.compute import supervisor
from genai_operators.compute.attempts import is_cancelled
from genai_operators.compute.contract import Attempt
from genai_operators.compute.ending import EXIT_RESUMABLE
from genai_operators.compute.environment import workload_environment
from genai_operators.compute.scratch import scratch_folder
from genai_operators.store import Store

#: Which node this is; of JobSets we set it, of TrainJobs Kubeflow does.
NODE_VARIABLE = "PET_NODE_RANK"
#: How long the first node waits for the others' ends to be seen before its own.
PEER_S = 10.0


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """The command line is the supervisor's. Returns the exit code."""
    if int(environment.get(NODE_VARIABLE, "0")):
        return follow(arguments)
    code = supervisor.main(arguments)
    if code == EXIT_RESUMABLE:
        _let_others_end_first(code)
    return code


def _let_others_end_first(code: int) -> None:
    """A node that is taken away makes all nodes stop, and is the only one of which the platform knows why.

    A Job that sees this one's end before that one's has failed, instead of being begun again.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
    time.sleep(PEER_S)


def follow(arguments: Sequence[str]) -> int:
    """Become the workload, and so not return; unless there is nothing left to do."""
    options = supervisor.parse(arguments)
    attempt = Attempt(store=Store.open(options.store), directory=options.directory, number=options.attempt)
    if has_ended(attempt):
        return 0
    if is_cancelled(attempt):
        return EXIT_RESUMABLE
    scratch = scratch_folder(attempt)
    scratch.mkdir(parents=True, mode=0o700, exist_ok=True)
    os.chdir(scratch)
    environment = workload_environment(attempt, scratch=scratch)
    return os.execvpe(options.command[0], options.command, environment)  # noqa: S606  one process less that must pass signals on


def has_ended(attempt: Attempt) -> bool:
    """Whether there is nothing left to follow."""
    store = attempt.store
    return store.exists(attempt.path("exit.json")) or store.exists(f"{attempt.directory}/result.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
