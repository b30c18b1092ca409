"""The object store: a checkpoint that was cut short, and a store that is away."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

from genai_operators.store import Store
from tests.fakes.faults.table import ROWS
from tests.fakes.kubernetes.fixture import FakeCluster
from tests.fakes.kubernetes_run import ClusterRun
from tests.fakes.ports import free_port
from tests.fakes.workload_run import wait_for

Settled = dict[str, Any]
#: Longer than the heartbeat, shorter than the lease after which a supervisor gives up.
DOWN_S = 6.0
BUCKET = "models"
_one_at_a_time = threading.Lock()


@ROWS.row("newest checkpoint cut short", "then preempted", params={"waits": True, "checkpoint_every": 5}, begun=2)
def cut_short(run: ClusterRun) -> Settled:
    """It is passed over for the one before."""
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 15)
    run.cluster.faults.hold_scheduling()
    pod = run.pod()
    run.cluster.faults.preempt(pod)
    wait_for(lambda: run.cluster.faults.figures()["running"] == 0, what="the end of its pod")
    newest = run.checkpoint()
    run.store.put(f"{run.attempt().prefix}/checkpoints/{newest}/state.txt", b"cut sh")
    run.cluster.faults.hold_scheduling(held=False)
    settled = run.finish(subject)
    assert f"from={newest} " not in run.witnessed("begin")[1]
    assert "from=0 " not in run.witnessed("begin")[1]
    return settled


class StoredRemotely(ClusterRun):
    """Its store is an S3 that can be away (moto's, whose objects outlive its server).

    One at a time, from its beginning to its judgement: the address of S3 is the whole process's.
    """

    def __init__(self, cluster: FakeCluster, folder: Path, **params: Any) -> None:
        _ = cluster.faults  # skips: pods of a real cluster do not reach a server of this host
        _one_at_a_time.acquire()
        try:
            self._begin(cluster, folder, **params)
        except BaseException:
            _one_at_a_time.release()
            raise

    def _begin(self, cluster: FakeCluster, folder: Path, **params: Any) -> None:
        from moto.server import ThreadedMotoServer

        super().__init__(cluster, folder, until=str(folder / "may-end"), **params)
        self.port = free_port()
        self._held: socket.socket | None = None
        self._make_server = lambda: ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        settings = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        self.backend["env_from_secrets"] = [_secret_of(cluster, settings)]
        os.environ.update(settings)
        self.begin_serving()
        self._make_bucket()
        self.store = Store.open(f"s3://{BUCKET}/{self.workload.fingerprint[:12]}")

    def begin_serving(self) -> None:
        if self._held is not None:
            self._held.close()
        self._server = self._make_server()
        self._server.start()

    def end_serving(self) -> None:
        """Refuse connections. The port stays ours: else whoever asks for any port might be given this one."""
        self._server.stop()
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", self.port))

    def _make_bucket(self) -> None:
        import boto3

        s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
        s3.create_bucket(Bucket=BUCKET)

    def end_everything(self) -> None:
        try:
            super().end_everything()
            self._server.stop()
        finally:
            _one_at_a_time.release()


def _secret_of(cluster: FakeCluster, values: dict[str, str]) -> str:
    """Name of a new Secret."""
    from kubernetes import client

    body = client.V1Secret(metadata=client.V1ObjectMeta(name="object-store"), string_data=values)
    client.CoreV1Api(cluster.api_client()).create_namespaced_secret(cluster.namespace, body)
    return "object-store"


@ROWS.row("object store away", "running", "at the end", make=StoredRemotely)
def away(run: StoredRemotely, phase: str) -> Settled:
    """Neither the steps nor the result nor the last lines are lost."""
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 10)
    run.end_serving()
    if phase == "at the end":
        run.let_finish()
    timer = threading.Timer(DOWN_S, run.begin_serving)
    timer.start()
    if phase == "at the end":
        wait_for(lambda: run.witnessed("done"), what="the end of its work")
    timer.join()
    run.let_finish()
    return run.drive(subject)
