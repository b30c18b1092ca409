"""The health check of a container: ``python /opt/host/healthy.py COMPONENT``; exit code 0 is healthy.

The components of Airflow are asked through its API server, which knows their heartbeats: ``airflow jobs check`` would
import all of Airflow, for seconds, each time.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 5.0
#: Component -> where it answers with 200.
ANSWERS = {
    "gateway": "http://127.0.0.1:9901/ready",
    "mlflow": "http://127.0.0.1:5000/health",
    "api_server": "http://127.0.0.1:8080/api/v2/monitor/health",
}
#: What Airflow's own health report speaks of.
HEARTBEATS = ("scheduler", "triggerer", "dag_processor")


def get(url: str) -> bytes | None:
    """The body of a successful answer."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310  our own URLs
            body: bytes = answer.read()
            return body if answer.status == 200 else None
    except (OSError, urllib.error.URLError):
        return None


def is_healthy(component: str) -> bool:
    """Whether the component answers, or its heartbeat is fresh."""
    if component in ANSWERS:
        return get(ANSWERS[component]) is not None
    body = get(f"{os.environ['AIRFLOW_API_URL']}/api/v2/monitor/health")
    return body is not None and json.loads(body)[component]["status"] == "healthy"


def main() -> int:
    """Returns 0 when the component is healthy."""
    known = (*ANSWERS, *HEARTBEATS)
    if len(sys.argv) != 2 or sys.argv[1] not in known:
        raise SystemExit(f"usage: healthy.py {'|'.join(known)}")
    return 0 if is_healthy(sys.argv[1]) else 1


if __name__ == "__main__":
    sys.exit(main())
