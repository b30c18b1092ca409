from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from genai_operators.exceptions import ConfigurationError, ManifestMismatch, RegistryUnavailable
from genai_operators.hooks.mlflow_rest import MlflowRest, RegistryError
from genai_operators.hooks.registry import DIGEST_TAG, ModelRegistry
from tests.fakes.ports import free_port


class Answers(BaseHTTPRequestHandler):
    """Answers whatever a test wants."""

    status: ClassVar[int] = 200
    body: ClassVar[str] = "{}"

    def do_GET(self) -> None:
        data = self.body.encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def answering(server: str, status: int, body: str) -> MlflowRest:
    Answers.status, Answers.body = status, body
    return MlflowRest(server)


class TestErrors:
    def test_nobody_there_is_worth_a_retry(self):
        with pytest.raises(RegistryUnavailable, match="does not answer") as caught:
            MlflowRest(f"http://127.0.0.1:{free_port()}").get("/registered-models/get", name="bot")
        assert caught.value.retry_helps

    @pytest.mark.parametrize("status", [500, 502, 503, 429])
    def test_a_server_in_trouble_is_worth_a_retry(self, server, status):
        with pytest.raises(RegistryUnavailable, match=str(status)):
            answering(server, status, "trouble").get("/x")

    def test_a_refusal_is_not_and_carries_mlflow_s_words(self, server):
        body = '{"error_code": "INVALID_PARAMETER_VALUE", "message": "name is too long\\nstack"}'
        with pytest.raises(RegistryError, match=r"refused .*name is too long$") as caught:
            answering(server, 400, body).get("/x")
        assert caught.value.code == "INVALID_PARAMETER_VALUE"
        assert not caught.value.retry_helps

    def test_what_is_missing_is_none_where_that_is_fine(self, server):
        body = '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}'
        assert answering(server, 404, body).find("/x") is None

    def test_another_server_on_the_port_is_recognised(self, server):
        with pytest.raises(RegistryUnavailable, match="is it an MLflow server"):
            answering(server, 200, "<html>hello</html>").get("/x")


class TestArtifacts:
    def test_a_server_that_does_not_serve_them_is_a_matter_of_configuration(self):
        with pytest.raises(ConfigurationError, match="--serve-artifacts"):
            MlflowRest("http://x").artifact_root("s3://bucket/models")

    def test_a_path_outside_of_a_version_is_refused(self, server, tmp_path):
        from genai_operators.hooks.registry import RegisteredVersion

        listing = '{"files": [{"path": "../../etc/passwd", "is_dir": false, "file_size": 3}]}'
        registry = ModelRegistry(server)
        registry.rest = answering(server, 200, listing)
        version = RegisteredVersion(
            model="bot", version=1, digest="d", source="mlflow-artifacts:/1/models/m/artifacts", complete=True
        )
        with pytest.raises(ManifestMismatch, match="outside of its version"):
            registry._download(version, tmp_path / "package")
        assert not list(tmp_path.iterdir())


class TestDigestTag:
    @pytest.mark.parametrize("digest", ["../../elsewhere", "", "/tmp/elsewhere", "A" * 64])
    def test_that_is_no_digest_never_names_a_folder(self, server, digest, tmp_path):
        tags = [{"key": DIGEST_TAG, "value": digest}]
        Answers.status = 200
        Answers.body = json.dumps({"model_version": {"name": "bot", "version": "1", "tags": tags}})
        with pytest.raises(ManifestMismatch, match=r"^bot v1: genai\.digest is .*, no sha256"):
            ModelRegistry(server).fetch("bot", 1, cache=tmp_path / "cache", trusted_keys=tmp_path)
        assert not list(tmp_path.iterdir())
