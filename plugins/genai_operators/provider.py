"""What Airflow shows of this package among its providers, when it is installed from the wheel."""

from __future__ import annotations

from typing import Any

import genai_operators


def get_provider_info() -> dict[str, Any]:
    """Entry point ``apache_airflow_provider``."""
    return {
        "package-name": "genai-operators",
        "name": "GenAI operators",
        "description": "Keeps fine-tuned language models good in production.",
        "versions": [genai_operators.__version__],
    }
