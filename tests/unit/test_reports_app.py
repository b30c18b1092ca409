from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.reports_app import is_report_path, report_url, run_url
from genai_operators.store import Store

REPORT = "workloads/evaluate/abc/report.html"
DIRECTORY = "workloads/evaluate/" + "a" * 64
RUN = run_url(DIRECTORY)


class TestReportPaths:
    @pytest.mark.parametrize("path", [REPORT, "releases/bot/r-1/report.html", "a b/é.html"])
    def test_of_reports_are_accepted(self, path: str) -> None:
        assert is_report_path(path)

    @pytest.mark.parametrize(
        "path",
        [
            "../secret.html",
            "a/../../secret.html",
            "/etc/passwd.html",
            "a//b.html",
            "./a.html",
            "a/%2e%2e/b.html",
            "..\\b.html",
            "a\x00.html",
            "ledger/bot/00000001.json",
            "report.html/",
            "",
        ],
    )
    def test_that_leave_the_store_or_are_no_reports_are_refused(self, path: str) -> None:
        assert not is_report_path(path)


@pytest.mark.slow
class TestInAirflow:
    """Airflow's real API server application with our plugin loaded."""

    @pytest.fixture(scope="class")
    def store(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
        folder = tmp_path_factory.mktemp("store")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(
                "AIRFLOW_CONN_GENAI_STORE", f'{{"conn_type": "generic", "extra": {{"uri": "{folder / "s"}"}}}}'
            )
            store = Store.open(folder / "s")
            store.put(REPORT, b"<html>fine</html>")
            store.put("ledger/bot/00000001.json", b"{}")
            (folder / "outside.html").write_text("outside")
            yield store

    @pytest.fixture(scope="class")
    def client(self, airflow_database: None, store: Store) -> Iterator[Any]:
        from airflow.api_fastapi.app import create_app, purge_cached_app
        from fastapi.testclient import TestClient

        yield TestClient(create_app(apps="core"), follow_redirects=False)
        purge_cached_app()

    @pytest.fixture(scope="class")
    def login(self, client: Any) -> dict[str, str]:
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="someone", role="viewer"))
        return {"Authorization": f"Bearer {token}"}

    @pytest.mark.parametrize(
        "url", [report_url(REPORT), report_url("nothing.html"), RUN, "/genai/openapi.json", "/genai/docs", "/genai/"]
    )
    def test_nothing_answers_without_a_login(self, client: Any, url: str) -> None:
        answer = client.get(url)
        assert answer.status_code == 401
        assert "fine" not in answer.text

    def test_a_report_is_shown_to_who_is_logged_in_and_can_do_nothing(self, client: Any, login: dict[str, str]) -> None:
        answer = client.get(report_url(REPORT), headers=login)
        assert (answer.status_code, answer.text) == (200, "<html>fine</html>")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "sandbox" in policy
        assert "script" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize(
        "path",
        [
            "ledger/bot/00000001.json",
            "workloads/evaluate/abc",
            "",
            "..%2foutside.html",
            "%2e%2e/outside.html",
            "workloads/..%2f..%2foutside.html",
        ],
    )
    def test_nothing_but_reports_below_the_store_is_shown(self, client: Any, login: dict[str, str], path: str) -> None:
        answer = client.get(report_url(path), headers=login)
        assert answer.status_code == 404
        assert "outside" not in answer.text

    def test_a_run_is_shown_as_it_is_now(self, client: Any, login: dict[str, str], store: Store) -> None:
        assert client.get(RUN, headers=login).status_code == 404
        store.create_json(f"{DIRECTORY}/spec.json", {"kind": "evaluate"})
        answer = client.get(RUN, headers=login)
        assert answer.status_code == 200
        assert "Run of evaluate" in answer.text
        assert "sandbox" in answer.headers["content-security-policy"]

    @pytest.mark.parametrize("path", ["evaluate/abc", "..%2fledger/" + "a" * 64, "Evaluate/" + "a" * 64, "evaluate"])
    def test_nothing_but_a_run_is_shown_as_one(self, client: Any, login: dict[str, str], path: str) -> None:
        assert client.get(f"/genai/runs/{path}", headers=login).status_code == 404

    @pytest.mark.parametrize("url", ["/genai/openapi.json", "/genai/docs"])
    def test_the_application_does_not_describe_itself(self, client: Any, login: dict[str, str], url: str) -> None:
        assert client.get(url, headers=login).status_code == 404

    def test_the_plugin_loads_without_an_error_and_shadows_no_module(self, client: Any) -> None:
        import sys
        import sysconfig

        from airflow import plugins_manager

        plugins, errors = plugins_manager._get_plugins()
        assert errors == {}
        assert "genai" in {plugin.name for plugin in plugins}
        assert Path(sys.modules["types"].__file__ or "").parent == Path(sysconfig.get_path("stdlib"))
