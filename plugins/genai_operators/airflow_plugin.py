"""What the package adds to Airflow: links to reports, and the page that serves them."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from genai_operators.operators.links import ReportLink, RunLink
from genai_operators.reports_app import URL_PREFIX, LazyReportsApp


class GenaiPlugin(AirflowPlugin):
    """The only plugin of the package."""

    name = "genai"
    operator_extra_links: list[Any] = [ReportLink(), RunLink()]  # noqa: RUF012 - Airflow declares instance variables
    fastapi_apps: list[dict[str, Any]] = [  # noqa: RUF012
        {"name": "genai reports", "app": LazyReportsApp(), "url_prefix": URL_PREFIX}
    ]
