"""The Airflow DAGs of every model file in include/models: <model>__retrain, <model>__drift, <model>__rollback."""

from __future__ import annotations

from pathlib import Path

from genai_operators.lifecycle import lifecycle_dags

globals().update(lifecycle_dags(Path(__file__).resolve().parents[1]))
