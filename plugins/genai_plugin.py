"""The only file of this folder that Airflow runs as a plugin; see .airflowignore for why."""

from __future__ import annotations

from genai_operators.airflow_plugin import GenaiPlugin

__all__ = ["GenaiPlugin"]
