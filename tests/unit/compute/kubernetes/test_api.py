"""Requests to a cluster: what a refusal means, what is tried again, who makes the client."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml

from genai_operators.compute.kubernetes import api, clients
from genai_operators.compute.kubernetes.api import KubernetesApi
from genai_operators.compute.kubernetes.errors import Failure, translate
from genai_operators.exceptions import ClusterUnavailable, ConfigurationError, QuotaExceeded
from tests.fakes import kubernetes_clients
from tests.fakes.ports import free_port

JOBS = "/apis/batch/v1/namespaces/genai/jobs"


def status(message: str, reason: str = "") -> bytes:
    return json.dumps({"kind": "Status", "message": message, "reason": reason}).encode()


class TestRefusals:
    @pytest.mark.parametrize(
        ("verb", "path", "resource"),
        [
            ("create", JOBS, "jobs.batch"),
            ("get", f"{JOBS}/one", "jobs.batch"),
            ("list", "/api/v1/namespaces/genai/pods", "pods"),
            ("get", "/api/v1/namespaces/genai/pods/one/log", "pods/log"),
            ("get", "/api/v1/nodes/one", "nodes"),
            ("get", "/api/v1/namespaces/genai", "namespaces"),
            ("create", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
             "selfsubjectaccessreviews.authorization.k8s.io"),
        ],
    )  # fmt: skip
    def test_a_missing_permission_is_named_as_rbac_does(self, verb, path, resource):
        assert Failure(verb, path, 403, b"").resource == resource
        error = translate(Failure(verb, path, 403, status("no")), connection="c")
        assert isinstance(error, ConfigurationError)
        assert f"not allowed to {verb} {resource}:" in str(error)

    @pytest.mark.parametrize(
        ("code", "message", "kind", "told"),
        [
            (403, 'jobs "x" is forbidden: exceeded quota: gpus', QuotaExceeded, "exceeded quota"),
            (401, "Unauthorized", ConfigurationError, "credentials"),
            (404, 'namespaces "genai" not found', ConfigurationError, "namespace right"),
            (422, "spec.template: Invalid value", ConfigurationError, "rejects"),
            (429, "too many requests", ClusterUnavailable, "429"),
            (500, "etcdserver: request timed out", ClusterUnavailable, "etcdserver"),
        ],
    )
    def test_each_kind_of_answer_has_its_exception(self, code, message, kind, told):
        error = translate(Failure("create", JOBS, code, status(message)), connection="c")
        assert type(error) is kind
        assert told in str(error)

    @pytest.mark.parametrize(
        ("verb", "reason", "conflict"),
        [("create", "Conflict", True), ("create", "AlreadyExists", False), ("delete", "Conflict", False)],
    )
    def test_a_quota_that_changed_at_the_same_moment_is_no_taken_name(self, verb, reason, conflict):
        assert Failure(verb, JOBS, 409, status("the object has been modified", reason)).conflict is conflict

    def test_what_is_not_installed_is_named(self):
        path = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/genai/jobsets"
        assert "Install JobSet" in str(translate(Failure("create", path, 404, b"404 page not found"), connection="c"))

    def test_a_proxy_s_page_is_no_surprise(self):
        error = translate(Failure("get", JOBS, 502, b"<html>Bad Gateway</html>"), connection="c")
        assert "Bad Gateway" in str(error)


class TestLists:
    def test_they_are_read_in_pages(self, cluster, backend, monkeypatch):
        path = f"/api/v1/namespaces/{cluster.namespace}/configmaps"
        monkeypatch.setattr(api, "PAGE", 2)
        before = cluster.faults.requests("list", "pods")
        template = {"spec": {"containers": [{"name": "c", "image": "nowhere"}]}}
        for number in range(5):
            body = {"metadata": {"name": f"page-{number}", "labels": {"test": "pages"}}, **template}
            backend.api.create(path.replace("configmaps", "pods"), body)
        found = backend.api.list(path.replace("configmaps", "pods"), labels="test=pages")
        assert len(found.items) == 5
        assert found.version
        assert cluster.faults.requests("list", "pods") - before == 3
        for pod in found.items:
            backend.api.delete(
                f"{path.replace('configmaps', 'pods')}/{pod['metadata']['name']}", uid=pod["metadata"]["uid"]
            )

    def test_a_namesake_is_not_deleted(self, cluster, backend):
        path = f"/api/v1/namespaces/{cluster.namespace}/pods"
        body = {"metadata": {"name": "namesake"}, "spec": {"containers": [{"name": "c", "image": "nowhere"}]}}
        made = backend.api.create(path, body)
        assert not backend.api.delete(f"{path}/namesake", uid="another")
        assert backend.api.find(f"{path}/namesake") is not None
        assert backend.api.delete(f"{path}/namesake", uid=made["metadata"]["uid"], grace_s=0)


class TestClients:
    def test_one_client_a_connection(self, cluster):
        source = clients.DEFAULT_SOURCE
        assert clients.connect(source, "same") is clients.connect(source, "same")
        assert clients.connect(source, "same") is not clients.connect(source, "other")

    def test_it_is_renewed_once_however_many_were_refused(self, cluster):
        source = clients.DEFAULT_SOURCE
        refused = clients.connect(source, "refused")
        renewed = [clients.renew(source, "refused", refused=refused) for _ in range(3)]
        assert renewed[0] is not refused
        assert len(set(map(id, renewed))) == 1

    def test_a_cluster_that_has_moved_is_found_where_the_connection_says_now(self, cluster, tmp_path, monkeypatch):
        monkeypatch.setattr(clients, "REREAD_S", 0.0)
        known = yaml.safe_load(cluster.kubeconfig.read_text())
        known["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{free_port()}"
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(known))
        moved = KubernetesApi(connection=str(path), clients=kubernetes_clients.SOURCE, tries=1)
        with pytest.raises(ClusterUnavailable):
            moved.find(f"{JOBS}/one")
        path.write_text(cluster.kubeconfig.read_text())
        assert moved.find(f"{JOBS}/one") is None

    @pytest.mark.parametrize("path", ["nowhere:client", "genai_operators.store:nothing", "genai_operators.store"])
    def test_a_source_that_does_not_exist_is_named(self, path):
        with pytest.raises(ConfigurationError, match=path):
            clients.connect(path, "c")

    def test_no_cluster_at_all_is_a_wrong_installation(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
        with pytest.raises(ConfigurationError, match="no cluster is configured"):
            KubernetesApi(connection="nowhere").find(JOBS)

    def test_a_stranger_s_certificate_is_no_outage(self, tmp_path, monkeypatch):
        """Trying again would not help."""
        if shutil.which("openssl") is None:
            pytest.skip("no openssl to make a certificate with")
        with stranger(tmp_path) as port:
            document = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
            (tmp_path / "kubeconfig").write_text(json.dumps(document))
            monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
            with pytest.raises(ConfigurationError, match="certificate"):
                KubernetesApi(connection="stranger").find(JOBS)


class stranger:  # noqa: N801  used as a function
    """A TLS server whose certificate nobody has signed."""

    def __init__(self, folder):
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subject = ["-subj", "/CN=127.0.0.1", "-days", "1", "-nodes"]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", key, "-out", certificate, *subject],
            check=True,
            capture_output=True,
        )
        self._server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self._server.server_port

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
