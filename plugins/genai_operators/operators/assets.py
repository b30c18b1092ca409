"""The asset that an operator names by itself, because only it knows whether there is an event."""

from __future__ import annotations

from functools import cache

from airflow.sdk import Asset


@cache
def endpoint_asset(model: str) -> Asset:
    """The public name under which the champion answers."""
    return Asset(name=f"{model}_endpoint", uri=f"x-genai://endpoints/{model}", group="endpoint")
