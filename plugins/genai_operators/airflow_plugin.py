"""What the package adds to Airflow: links to reports, and the page that serves them."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from genai_operators.reports_app import URL_PREFIX, LazyReportsApp


class GenaiPlugin(AirflowPlugin):  # type: ignore[misc]  # Airflow's base class is untyped
    """The only plugin of the package."""

    name = "genai"
    operator_extra_links: ClassVar[list[Any]] = []
    fastapi_apps: ClassVar[list[dict[str, Any]]] = [
        {"name": "genai reports", "app": LazyReportsApp(), "url_prefix": URL_PREFIX}
    ]
