from __future__ import annotations

import pytest

from genai_operators.spec.credentials import looks_like_credential


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_KEY",
        "AIRFLOW_CONN_GENAI_STORE",
        "HF_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "WANDB_API_KEY",
        "wandb_apikey",
    ],
)
def test_names_of_credentials(name: str) -> None:
    assert looks_like_credential(name, "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", "http://minio:9000"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/token"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/keys/google.json"),
        ("MAX_TOKENS", "512"),
        ("MONKEY", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("NO_PROXY", "localhost:80,me@example.org"),
    ],
)
def test_plain_settings(name: str, value: str) -> None:
    assert not looks_like_credential(name, value)


def test_a_password_in_an_address() -> None:
    assert looks_like_credential("HTTPS_PROXY", "http://me:canary@proxy:3128")
