"""Holds no DAG. Airflow shows its import error: everything that is wrong in include/models."""

from __future__ import annotations

from pathlib import Path

from genai_operators.lifecycle import raise_model_file_errors

raise_model_file_errors(Path(__file__).resolve().parents[1])
