"""What has to be there before the platform of ``docker/compose.yaml`` starts. Each step is harmless when run twice.

The buckets, Airflow's tables, its connections and pools, and the administrator's password, all from the environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PASSWORDS = Path("/var/lib/genai/airflow/passwords.json")
SETTINGS = Path("/opt/airflow/airflow_settings.yaml")
GATEWAY = "/var/lib/genai/gateway"
#: Where this platform differs from a laptop; the rest is as in the settings file.
CONNECTIONS = {
    "genai_mlflow.host": "mlflow",
    "genai_gateway.extra.gateway_url": "http://127.0.0.1:8081",
    "genai_gateway.extra.admin_url": "http://127.0.0.1:9901",
    "genai_gateway.extra.supervisor": f"{GATEWAY}/supervisor.sock",
    "genai_gateway.extra.directory": GATEWAY,
    "genai_compute_local.extra.workload_python": "/opt/genai/bin/python",
    "genai_signing.extra.private_key": "/var/lib/genai/keys/signing.pem",
    "genai_signing.extra.trusted_keys": "/var/lib/genai/keys/trusted",
}


def create_buckets(uris: list[str]) -> None:
    """Create the bucket of each ``s3://`` URI unless it exists."""
    import boto3
    from botocore.exceptions import ClientError

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for bucket in {uri.removeprefix("s3://").partition("/")[0] for uri in uris}:
        try:
            client.create_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise
        print(f"bucket {bucket} is there", flush=True)


def write_passwords() -> None:
    """Airflow's simple auth manager reads users' passwords from a file that it can also write."""
    PASSWORDS.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    PASSWORDS.touch(mode=0o600)
    PASSWORDS.write_text(json.dumps({"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"]}) + "\n", encoding="utf-8")


def main() -> int:
    """Returns 0 when everything is there."""
    create_buckets([os.environ["GENAI_STORE_URI"], os.environ["MLFLOW_ARTIFACTS_URI"]])
    write_passwords()
    connections = {**CONNECTIONS, "genai_store.extra.uri": os.environ["GENAI_STORE_URI"]}
    assignments = [word for key, value in connections.items() for word in ("--set", f"{key}={value}")]
    subprocess.run(["airflow", "db", "migrate"], check=True)
    apply = [sys.executable, "-m", "genai_operators.settings_file", "apply", str(SETTINGS), *assignments]
    return subprocess.run(apply, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
