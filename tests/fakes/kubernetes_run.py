"""A workload in a cluster, real or fake: driven as a trigger does it, disturbed, and judged afterwards.

On a real cluster (see :mod:`tests.fakes.kubernetes`) pods and the test meet in the store that
``GENAI_TEST_KUBERNETES_STORE`` names.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genai_operators.compute import attempts, owners
from genai_operators.compute.backends import open_backend
from genai_operators.compute.cancelling import withdraw
from genai_operators.compute.contract import GONE, Workload
from genai_operators.compute.kubernetes import clients
from genai_operators.compute.kubernetes.names import FINGERPRINT_LABEL, LONGEST_LABEL
from genai_operators.compute.owners import Owner
from genai_operators.compute.reconcile import reconcile_workloads
from genai_operators.compute.resources import Resources
from genai_operators.compute.watch import WorkloadSubject
from genai_operators.exceptions import GenaiError
from genai_operators.store import Store
from tests.fakes import checkpointing, kubernetes_clients
from tests.fakes.crashing import look
from tests.fakes.kubernetes.fixture import FakeCluster, store_of
from tests.fakes.workload_run import WorkloadRun, owner, wait_for

PAUSE_S = 0.1
STEPS = 20
Json = dict[str, Any]


def labelled(objects: Sequence[Mapping[str, Any]], fingerprint: str) -> list[Any]:
    """Those of one workload."""
    wanted = fingerprint[:LONGEST_LABEL]
    return [each for each in objects if (each["metadata"].get("labels") or {}).get(FINGERPRINT_LABEL) == wanted]


class ClusterRun(WorkloadRun):
    """One workload, in a store of its own."""

    patience_s = 150.0

    def __init__(
        self,
        cluster: FakeCluster,
        folder: Path,
        *,
        waits: bool = False,
        **params: Any,
    ) -> None:
        """
        :param waits: the workload waits at its last step until :meth:`open_gate`.
        :param params: of the checkpointing workload.
        """
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, **{"steps": STEPS, **params})
        self.cluster = cluster
        self.folder = folder
        if cluster.real:
            self.store = Store.open(store_of(cluster, folder))
            self.params["witness"] = ""  # a pod sees no folder of this host
        self.gate = f"gates/{secrets.token_hex(8)}"
        if waits:
            self.params["gate"] = self.gate
        self.compute(Workload(kind=checkpointing.KIND, params=self.params, nonce=secrets.token_hex(8)))
        self.backend: Json = {
            "target": "kubernetes",
            "connection": str(cluster.kubeconfig),
            "clients": kubernetes_clients.SOURCE,
            "namespace": cluster.namespace,
            "image": cluster.image,
            "service_account": "",
            "grace_s": 5.0,
            "env": {"GENAI_EXTRA_WORKLOADS": checkpointing.EXTRA_WORKLOADS},
        }
        self.ladder: list[Resources] = []
        self.budget: Json | None = None
        self.seen_jobs: set[str] = set()
        self._after: list[Callable[[], Any]] = []

    def compute(self, workload: Workload) -> None:
        """Compute this one."""
        self.workload = workload
        self.directory = workload.directory

    # --- driving -----------------------------------------------------------------------------------------------

    def arguments(self, who: Owner | None = None, **limits: Any) -> Json:
        """Join, and return the arguments of a subject."""
        return {
            **super().arguments(who, **limits),
            "backend": self.backend,
            "ladder": [rung.to_json() for rung in self.ladder],
            "budget": self.budget,
        }

    def drive(self, subject: WorkloadSubject, *, until: Callable[[], Any] | None = None) -> Json:
        """Poll until it settled, or until the condition holds (then ``{}``); go on where a retry helps."""
        return self._drive(subject, until=until, lines=self.lines)

    def watch(self, subject: WorkloadSubject) -> Json:
        """Drive what another task waits for as well; its log is not looked at."""
        return self._drive(subject, until=None, lines=[])

    def _drive(self, subject: WorkloadSubject, *, until: Callable[[], Any] | None, lines: list[str]) -> Json:
        deadline = time.monotonic() + self.patience_s
        while time.monotonic() < deadline:
            poll = look(subject)
            lines.extend(poll.lines)
            if self.cluster.real:
                self.jobs()  # whoever is not seen now is not counted
            if poll.settled is not None:
                return poll.settled
            if until is not None and until():
                return {}
            if not poll.more:
                time.sleep(PAUSE_S)
        raise AssertionError(f"not settled after {self.patience_s:.0f} s:\n" + self.describe())

    def open_client(self) -> None:
        """As a worker that has talked to the cluster before."""
        clients.connect(kubernetes_clients.SOURCE, str(self.cluster.kubeconfig))

    def submit(self, **limits: Any) -> WorkloadSubject:
        """What the operator does before it defers."""
        subject = self.subject(**limits)
        self.lines.extend(subject.start().lines)
        if self.cluster.real:
            self.jobs()
        return subject

    def finish(self, subject: WorkloadSubject | None = None) -> Json:
        """Let it go and wait for its end."""
        self.open_gate()
        return self.drive(subject or self.subject())

    def open_gate(self) -> None:
        """A workload that was made with ``wait=True`` goes on past its last step."""
        self.store.put(self.gate, b"")

    def settle(self, who: Owner | None = None) -> None:
        """What the operator does once the waiting is over."""
        withdraw(self.store, self.directory, who or owner(), reason="it has settled")

    # --- looking -----------------------------------------------------------------------------------------------

    def pods(self) -> list[Json]:
        """Its pods that the cluster still has."""
        if not self.cluster.real:
            return labelled(self.cluster.faults.objects("pods"), self.workload.fingerprint)
        return labelled(self._list("pods"), self.workload.fingerprint)

    def jobs(self) -> list[Json]:
        """Its Jobs that the cluster still has."""
        found = labelled(
            self._list("jobs") if self.cluster.real else self.cluster.faults.objects("jobs"),
            self.workload.fingerprint,
        )
        self.seen_jobs |= {job["metadata"]["uid"] for job in found}
        return found

    def _list(self, plural: str) -> list[Json]:
        from kubernetes import client

        api = self.cluster.api_client()
        core, batch = client.CoreV1Api(api), client.BatchV1Api(api)
        found = core.list_namespaced_pod if plural == "pods" else batch.list_namespaced_job
        items: list[Json] = api.sanitize_for_serialization(found(self.cluster.namespace))["items"]
        return items

    def pod(self, phase: str = "Running", *, but: Sequence[str] = ()) -> str:
        """Name of a pod of that phase that is not being deleted and is none of ``but``; waits for it."""

        def look() -> str:
            for pod in self.pods():
                name = str(pod["metadata"]["name"])
                fresh = name not in but and not pod["metadata"].get("deletionTimestamp")
                if fresh and (pod.get("status") or {}).get("phase", "Pending") == phase:
                    return name
            return ""

        return str(wait_for(look, what=f"a pod that is {phase}"))

    def node(self, pod: str) -> str:
        """Where it is."""
        return str(next(each["spec"]["nodeName"] for each in self.pods() if each["metadata"]["name"] == pod))

    def began(self, number: int = 1) -> bool:
        """Whether the workload's own code was reached; of a real cluster's pods only their progress tells."""
        if not self.cluster.real:
            return super().began(number)
        heartbeat = self.store.find_json(self.attempt(number).path("heartbeat.json")) or {}
        return bool(heartbeat.get("progress"))

    def checkpoint(self) -> int:
        """Step of the newest one, -1 without."""
        return attempts.newest_checkpoint_step(self.store, self.directory)

    def starts(self, number: int = 1) -> int:
        """How many processes of an attempt have begun."""
        attempt = self.attempt(number)
        if not self.store.exists(attempt.path("started.json")):
            return 0
        return 1 + attempts.newest_start(attempt)[0]

    def created(self) -> int:
        """How many Jobs were ever created."""
        if not self.cluster.real:
            return int(self.cluster.faults.created("jobs"))
        self.jobs()
        return len(self.seen_jobs)

    def describe(self) -> str:
        """What was said, and what is in the cluster."""
        cluster = "" if self.cluster.real else self.cluster.faults.describe()
        said = [] if self.cluster.real else self._said()
        return "\n".join([*self.lines, cluster, *said, *self.witnessed(), *self._endings()])

    def _endings(self) -> list[str]:
        """How each attempt ended by its own account, with its last words, as far as the store can be read."""
        try:
            return [
                f"attempt {number}: {self.store.find_json(self.attempt(number).path('exit.json'))}"
                + "".join(f"\n  {line}" for line in [line for chunk in self.chunks(number) for line in chunk][-20:])
                for number in range(1, self.newest() + 1)
            ]
        except GenaiError as error:
            return [str(error)]

    def _said(self) -> list[str]:
        """The logs of all pods, of those that are gone as well."""
        folder = Path(self.cluster.folder) / "pods"
        return [f"{path.parts[-4][:8]}: {path.read_text()[-2000:]}" for path in sorted(folder.glob("*/logs/*/*.log"))]

    # --- judging -----------------------------------------------------------------------------------------------

    def assert_every_line_shown(self, *, first: int = 1) -> None:
        """Lines of each attempt, numbered from 1 without a gap; at most one chunk of them twice."""
        for number in range(first, self.newest() + 1):
            chunks = self.chunks(number)
            written = [line for chunk in chunks for line in chunk]
            assert [int(line.split(" ", 1)[0]) for line in written] == list(range(1, len(written) + 1)), written
            shown = [line.removeprefix(f"{number}:") for line in self.lines if line.startswith(f"{number}:0")]
            assert sorted(set(shown)) == written
            assert len(shown) - len(written) <= max(map(len, chunks), default=0)

    def chunks_noted(self, who: Owner | None = None) -> int:
        """How many chunks of the first attempt's log somebody who waits has noted as shown."""
        record = self.store.find_json(f"{self.directory}/shown/{(who or owner()).key}.json") or {}
        return int(record.get("log", 0)) if record.get("attempt", 1) == 1 else 0

    def assert_result(self, *, succeeded: bool) -> None:
        """The bytes of a run that nobody disturbed; or no result at all."""
        result = attempts.find_result(self.store, self.directory)
        assert (result is not None) == succeeded
        if succeeded:
            assert self.state() == checkpointing.final_state(self.params["steps"])

    def chunks(self, number: int) -> list[list[str]]:
        """The log of an attempt as it was written."""
        infos = self.store.list(self.attempt(number).path("log"))
        return [self.store.get(info.path).decode().splitlines() for info in infos]

    def assert_nothing_left(self, *, reconciling: bool = False) -> None:
        """No Job that could start a pod, no pod that could run, no process, no claim that has not ended, no owner.

        :param reconciling: what reconciling does every minute helps.
        """

        def alive() -> list[str]:
            if reconciling:
                self._reconciled()
            running = [pod for pod in self.pods() if (pod.get("status") or {}).get("phase") not in _TERMINAL]
            going_on = [job for job in self.jobs() if not _has_finished(job)]
            return [each["metadata"]["name"] for each in (*running, *going_on)]

        wait_for(lambda: not alive(), what="the end of what is left", every_s=0.2)
        if not self.cluster.real:
            wait_for(lambda: self.cluster.faults.figures()["running"] == 0, what="the end of all processes")
        for number in range(1, self.newest() + 1):
            attempt = self.attempt(number)
            claim = self.store.get_json(attempt.path("claim.json"))
            gone = open_backend(claim["backend"]).probe(attempt).phase in GONE
            assert gone or attempts.recorded_ending(attempt), f"attempt {number} has not ended"
        wait_for(self._reconciled, what="nobody to be left in the index of owners")

    def _reconciled(self) -> bool:
        reconcile_workloads(self.store, lambda _owner: "success")
        return all(directory != self.directory for directory, _ in owners.active(self.store))

    def end_everything(self) -> None:
        """Take everything out of the cluster, whatever happened, and let nobody want it."""
        for info in self.store.list(f"{self.directory}/owners"):
            self.store.delete(info.path)
        for number in range(1, self.newest() + 1):
            attempts.abandon(self.attempt(number), reason="the test is over")
        for number in range(1, self.newest() + 1):
            open_backend(self.backend).stop(self.attempt(number))
        for remove in reversed(self._after):
            remove()

    def when_over(self, remove: Callable[[], Any]) -> None:
        """After the run remove something that the run made outside of its namespace."""
        self._after.append(remove)


_TERMINAL = ("Succeeded", "Failed")


def _has_finished(job: Mapping[str, Any]) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)
