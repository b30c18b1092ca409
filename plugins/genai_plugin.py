"""The only file of this folder that Airflow runs as a plugin; see .airflowignore for why."""

from __future__ import annotations

from pathlib import Path

import genai_operators
from genai_operators.airflow_plugin import GenaiPlugin
from genai_operators.exceptions import ConfigurationError

if Path(genai_operators.__file__).resolve().parent != Path(__file__).resolve().parent / "genai_operators":
    raise ConfigurationError(
        f"genai_operators is installed as a package ({Path(genai_operators.__file__).parent}) and lies in the plugins "
        f"folder too ({Path(__file__).parent}); remove one: `pip uninstall genai-operators`, or the folder"
    )

__all__ = ["GenaiPlugin"]
