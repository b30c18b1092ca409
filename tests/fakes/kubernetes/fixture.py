"""A cluster for tests: the fake as a subprocess, or a real one when the environment names it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.fakes.kubernetes.client import ControlClient
from tests.fakes.kubernetes.container import CLUSTER_MARKER, kill_quietly, marked_processes
from tests.fakes.kubernetes.settings import Image, Settings

ROOT = Path(__file__).resolve().parents[3]
#: Set together with KUBECONFIG: the tests use that cluster and namespace instead of the fake.
REAL_NAMESPACE = "GENAI_TEST_KUBERNETES_NAMESPACE"
REAL_IMAGE = "GENAI_TEST_KUBERNETES_IMAGE"
REAL_STORE = "GENAI_TEST_KUBERNETES_STORE"
#: Where collections lie in the API.
GROUPS = {
    "jobs": "/apis/batch/v1",
    "jobsets": "/apis/jobset.x-k8s.io/v1alpha2",
    "nodes": "/api/v1",
    "pods": "/api/v1",
    "resourceclaimtemplates": "/apis/resource.k8s.io/v1",
    "trainjobs": "/apis/trainer.kubeflow.org/v1alpha1",
}
GPU_PRODUCT = "nvidia.com/gpu.product"
#: Tells apart what several sessions put into one real store.
SESSION = f"tests-{secrets.token_hex(4)}"
START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 10.0
TOKEN = "fake-token"
IMAGE = "registry.example/genai-workload@sha256:" + "0123456789abcdef" * 4


def workload_image(python: str | None = None) -> Image:
    """An image whose ``python`` is the given interpreter (default: this one) and that has the project's packages."""
    folder = Path(python or sys.executable).parent
    return Image((str(folder),), (str(ROOT / "plugins"), str(ROOT)), {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"})


@dataclass
class FakeCluster:
    """A cluster to test against.

    :ivar kubeconfig: path of a kubeconfig file that reaches it.
    :ivar namespace: where to work.
    :ivar image: an image that has ``python`` and the project.
    :ivar control: faults and figures; None on a real cluster.
    """

    kubeconfig: Path
    namespace: str
    image: str
    control: ControlClient | None
    folder: Path
    port: int = 0
    token: str = TOKEN
    server: subprocess.Popen[bytes] | None = None
    seen: set[tuple[str, str]] = field(default_factory=set)

    @property
    def real(self) -> bool:
        """Whether this is a real cluster: faults can be injected only as far as the API allows."""
        return self.control is None

    @property
    def faults(self) -> ControlClient:
        """The control client; a test that needs it skips on a real cluster."""
        if self.control is None:
            import pytest

            pytest.skip("faults of this kind can be injected only into the fake cluster")
        return self.control

    def api_client(self) -> Any:
        """A new ``kubernetes.client.ApiClient`` for this cluster."""
        from kubernetes import config

        return config.new_client_from_config(config_file=str(self.kubeconfig))

    def rotate_token(self, token: str = "fresh-token") -> None:
        """Write a new token into the kubeconfig and let the old one expire, as a token provider does."""
        self.faults.add_token(token)
        old, self.token = self.token, token
        write_kubeconfig(self.kubeconfig, port=self.port, namespace=self.namespace, token=token)
        self.faults.expire_token(old)

    # What can be seen of, and done to, any cluster by its own API.

    def job(self, name: str) -> dict[str, Any]:
        """A Job."""
        from kubernetes import client

        batch = client.BatchV1Api(self.api_client())
        return dict(json.loads(batch.read_namespaced_job(name, self.namespace, _preload_content=False).data))

    def objects(self, plural: str) -> list[dict[str, Any]]:
        """Everything of a kind in the namespace (nodes: of the cluster)."""
        api, headers = self.api_client(), dict[str, str]()
        api.update_params_for_auth(headers, [], ["BearerToken"])
        where = "" if plural == "nodes" else f"/namespaces/{self.namespace}"
        url = f"{api.configuration.host}{GROUPS[plural]}{where}/{plural}"
        answer = api.rest_client.pool_manager.request("GET", url, headers=headers)
        assert answer.status == 200, answer.data
        return list(json.loads(answer.data)["items"])

    def created(self, plural: str) -> int:
        """How many objects of a kind were ever created; in a real cluster, how many any look has seen."""
        if self.control is not None:
            return self.control.created(plural)
        self.seen |= {(plural, str(found["metadata"]["uid"])) for found in self.objects(plural)}
        return sum(kind == plural for kind, _ in self.seen)

    def require_gpu(self, product: str) -> None:
        """Skip where no node of a real cluster has a GPU of this label (``nvidia.com/gpu.product``)."""
        if self.control is not None:
            return
        labels = [node["metadata"].get("labels") or {} for node in self.objects("nodes")]
        if product not in {each.get(GPU_PRODUCT) for each in labels}:
            import pytest

            pytest.skip(f"no node of this cluster has the label {GPU_PRODUCT}={product}")

    def describe(self) -> str:
        """What is in it, for messages."""
        return "" if self.control is None else self.control.describe()

    def wait(self, condition: Callable[[], Any], what: str, *, seconds: float = 60.0) -> Any:
        """Until ``condition()`` is true; returns what it returned. Raises TimeoutError with what is in the cluster."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s: {what}\n{self.describe()}")
            time.sleep(0.02 if self.control is not None else 0.2)
        return found

    def pods(self, job: str) -> list[dict[str, Any]]:
        """A Job's pods."""
        from kubernetes import client

        core = client.CoreV1Api(self.api_client())
        selector = f"batch.kubernetes.io/job-name={job}"
        answer = core.list_namespaced_pod(self.namespace, label_selector=selector, _preload_content=False)
        return list(json.loads(answer.data)["items"])

    def wait_for_pod(self, job: str, phase: str = "Running", *, other_than: str = "", seconds: float = 60.0) -> str:
        """Until a pod of the Job, other than a named one, has the phase; returns its name."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for pod in self.pods(job):
                if pod["status"]["phase"] == phase and pod["metadata"]["name"] != other_than:
                    return str(pod["metadata"]["name"])
            time.sleep(0.1)
        raise TimeoutError(f"no pod of {job} is {phase} after {seconds} s")

    def delete_pod(self, name: str, *, grace_s: int | None = None) -> None:
        """Delete a pod by hand."""
        from kubernetes import client

        options = {} if grace_s is None else {"grace_period_seconds": grace_s}
        client.CoreV1Api(self.api_client()).delete_namespaced_pod(name, self.namespace, **options)

    def evict_pod(self, name: str) -> None:
        """Evict a pod by the eviction API, as draining a node does."""
        from kubernetes import client

        body = client.V1Eviction(metadata=client.V1ObjectMeta(name=name, namespace=self.namespace))
        client.CoreV1Api(self.api_client()).create_namespaced_pod_eviction(name, self.namespace, body)

    def delete_job(self, name: str, *, propagation: str = "Background") -> None:
        """Delete a Job by hand, and its pods unless they become orphans (``propagation="Orphan"``)."""
        from kubernetes import client

        client.BatchV1Api(self.api_client()).delete_namespaced_job(name, self.namespace, propagation_policy=propagation)


@contextmanager
def fake_cluster(settings: Settings | None = None, *, folder: Path | None = None) -> Iterator[FakeCluster]:
    """Start a fake cluster; everything that it started ends with it, and with this process.

    :param settings: ``folder`` and missing ``images`` are filled in: ``IMAGE`` is this interpreter with the project.
    :param folder: where pods, logs and the server's own log go; default a temporary folder.
    """
    temporary = folder is None
    folder = folder or Path(tempfile.mkdtemp(prefix="genai-fake-cluster-"))
    folder.mkdir(parents=True, exist_ok=True)
    settings = replace(settings or Settings(folder=""), folder=str(folder))
    settings = replace(
        settings,
        images=settings.images or {IMAGE.split("@")[0]: workload_image()},
        keep_paths=settings.keep_paths or (str(folder.parent),),
    )
    settings.dump(folder / "settings.json")
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.kubernetes", str(folder / "settings.json")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env=_server_environment(),
            start_new_session=True,
        )  # fmt: skip
    try:
        ports = _ready(server, folder)
        kubeconfig = folder / "kubeconfig"
        write_kubeconfig(kubeconfig, port=ports["api"], namespace=settings.namespace, token=TOKEN)
        control = ControlClient(ports["control"], settings.namespace)
        yield FakeCluster(kubeconfig, settings.namespace, IMAGE, control, folder, ports["api"], server=server)
    finally:
        _end(server, str(folder))
        if temporary:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster_from_environment(settings: Settings | None = None, *, folder: Path | None = None) -> Iterator[FakeCluster]:
    """The real cluster that the environment names, else a fake one."""
    if not is_real():
        with fake_cluster(settings, folder=folder) as cluster:
            yield cluster
        return
    image = os.environ.get(REAL_IMAGE, "")
    where = folder or Path(tempfile.mkdtemp(prefix="genai-cluster-"))
    yield FakeCluster(Path(os.environ["KUBECONFIG"]), os.environ[REAL_NAMESPACE], image, None, where)


def store_of(cluster: FakeCluster, folder: Path) -> str:
    """URI of a store of its own that pods reach: a folder of this host, or one where the environment says.

    Its own, as reconciling ends whatever in a store nobody wants.
    """
    if not cluster.real:
        return folder.as_uri()
    return f"{real_store().rstrip('/')}/{SESSION}/{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def is_real() -> bool:
    """Whether the environment names a real cluster."""
    return bool(os.environ.get(REAL_NAMESPACE) and os.environ.get("KUBECONFIG"))


def real_store() -> str:
    """URI of the store that pods of the real cluster reach; skips where the environment names none."""
    if REAL_STORE not in os.environ:
        import pytest

        pytest.skip(f"a real cluster's pods need a store that they can reach: set {REAL_STORE}")
    return os.environ[REAL_STORE]


def write_kubeconfig(path: Path, *, port: int, namespace: str, token: str) -> None:
    """A kubeconfig with one context; JSON is YAML."""
    server = f"http://127.0.0.1:{port}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": server}}],
        "users": [{"name": "airflow", "user": {"token": token}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "airflow", "namespace": namespace}}],
        "current-context": "fake",
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1), encoding="utf-8")
    partial.replace(path)


def _server_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def _ready(server: subprocess.Popen[bytes], folder: Path) -> dict[str, int]:
    assert server.stdout is not None
    readable, _, _ = select.select([server.stdout], [], [], START_TIMEOUT_S)
    line = server.stdout.readline() if readable else b""
    if not line:
        raise RuntimeError(f"the fake cluster did not start:\n{(folder / 'server.log').read_text()[-3000:]}")
    return dict(json.loads(line))


def _end(server: subprocess.Popen[bytes], marker: str) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    try:
        server.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(END_TIMEOUT_S)
    server.stdout.close()
    for pid in marked_processes(CLUSTER_MARKER, marker):
        kill_quietly(pid)
