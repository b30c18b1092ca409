from __future__ import annotations

import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from genai_operators.check import check, configured_store, main
from genai_operators.release.last_plan import write_last_plan
from genai_operators.release.ledger import Action, Ledger
from genai_operators.spec.model import ModelSpec
from genai_operators.store import Store

MODEL = "data: {train: include/data/rows.csv}\ntrain: {seed: 1}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("models", "recipes", "suites", "data"):
        (tmp_path / "include" / folder).mkdir(parents=True)
    (tmp_path / "include/recipes/small.yaml").write_text("max_steps: 10\n")
    (tmp_path / "include/suites/messages.yaml").write_text("{}\n")
    (tmp_path / "include/data/rows.csv").write_text("text,category\n")
    (tmp_path / "include/models/bot.yaml").write_text(MODEL)
    return tmp_path


def run(project: Path, *, store: Store | None = None, base: str | None = None) -> tuple[int, str]:
    output = StringIO()
    code = check(project, store=store, base=base, console=Console(file=output, width=200))
    return code, output.getvalue()


class TestPullRequest:
    def test_valid_files_pass_and_show_what_a_run_would_do(self, project: Path) -> None:
        code, said = run(project)
        assert code == 0
        assert "bot (champion: unknown without a store)" in said
        assert "small; seed 1" in said
        assert "5 % -> 25 % -> 50 % -> 100 %" in said

    def test_what_happens_by_itself_is_named_with_its_reasons(self, project: Path) -> None:
        assert "retrains on drift or 5,000 judged answers or an age of 90d, once in 1d at most" in run(project)[1]
        policy = "policy: {maximum_negative_feedback: 0.2, enough_new_rows: null, maximum_age: null, cooldown: 12h}\n"
        (project / "include/models/bot.yaml").write_text(MODEL + policy)
        assert "retrains on drift or over 20% wrong answers, once in 12h at most" in run(project)[1]
        (project / "include/models/bot.yaml").write_text(MODEL + "schedule: {drift: null, retrain: '@daily'}\n")
        assert "never checks for drift, so the policy is never asked, retrains at @daily" in run(project)[1]

    def test_a_wrong_file_fails_with_its_line_and_the_others_are_still_shown(self, project: Path) -> None:
        (project / "include/models/wrong.yaml").write_text("data:\n  train: x\n  format: cvs\n")
        code, said = run(project)
        assert code == 1
        assert "include/models/wrong.yaml:3:11: data.format: 'cvs' is not allowed; did you mean 'csv'?" in said
        assert "bot (champion" in said
        assert "1 of 2 model files are valid; problems: 1" in said

    def test_a_wrong_recipe_fails_even_if_no_model_uses_it(self, project: Path) -> None:
        (project / "include/recipes/other.yaml").write_text("methd: lora\n")
        code, said = run(project)
        assert code == 1
        assert "include/recipes/other.yaml:1:1: unknown key 'methd'; did you mean 'method'?" in said

    def test_missing_data_is_a_note_as_it_may_be_made_later(self, project: Path) -> None:
        (project / "include/data/rows.csv").unlink()
        code, said = run(project)
        assert code == 0
        assert "include/data/rows.csv does not exist here" in said

    def test_the_change_since_the_last_run_is_shown_with_who_feels_it(self, project: Path, tmp_path: Path) -> None:
        store = Store.open(tmp_path / "store")
        spec = ModelSpec.model_validate({"data": {"train": "include/data/rows.csv"}})
        write_last_plan(store, "bot", spec=spec.to_json(), run="scheduled__1")
        Ledger(store, "bot").append(
            Action.PROMOTE, 3, "0" * 64, actor="me", reason="test", evidence={}, expected_epoch=0
        )
        code, said = run(project, store=store)
        assert code == 0
        assert "bot (champion: v3)" in said
        assert "train.seed: 0 -> 1 (trains and evaluates anew)" in said

    def test_the_store_is_the_one_of_the_settings_file(self, project: Path) -> None:
        assert configured_store(project) is None
        (project / "airflow_settings.yaml").write_text(
            "airflow: {connections: [{conn_id: genai_store, conn_extra: {uri: .run/store}}]}\n"
        )
        assert configured_store(project) is None
        (project / ".run/store").mkdir(parents=True)
        store = configured_store(project)
        assert store is not None
        assert store.uri == (project / ".run/store").as_uri()

    def test_this_projects_files_pass(self, project_root: Path) -> None:
        assert main(["--root", str(project_root)]) == 0


class TestAgainstAGitRef:
    """Of a pull request; it needs no store."""

    @pytest.fixture
    def committed(self, project: Path) -> Path:
        git = ["git", "-C", str(project), "-c", "user.name=t", "-c", "user.email=t@t"]
        for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
            subprocess.run([*git, *command], check=True)
        return project

    def test_a_changed_field_and_a_new_file(self, committed: Path) -> None:
        (committed / "include/models/bot.yaml").write_text(MODEL.replace("seed: 1", "seed: 2"))
        (committed / "include/models/new.yaml").write_text(MODEL)
        _, said = run(committed, base="HEAD")
        assert "train.seed: 1 -> 2" in said
        assert "none; compared with nothing, it is not in HEAD" in said
        assert "warning" not in said

    def test_nothing_changed_is_said_to_be_nothing(self, committed: Path) -> None:
        assert "none; compared with HEAD" in run(committed, base="HEAD")[1]

    def test_a_changed_recipe_is_a_change_of_whoever_uses_it(self, committed: Path) -> None:
        (committed / "include/recipes/small.yaml").write_text("max_steps: 20\n")
        assert "recipe.max_steps: 10 -> 20 (trains and evaluates anew)" in run(committed, base="HEAD")[1]

    @pytest.mark.parametrize("suite", ["include/suites/messages.yaml", "elsewhere.yaml"])
    def test_so_is_a_changed_suite_wherever_it_lies(self, project: Path, suite: str, request: Any) -> None:
        rule = "{name: length, type: expect_column_max_to_be_between, kwargs: {max_value: %s}}"
        (project / suite).write_text(f"expectations: [{rule % 10}]\n")
        (project / "include/models/bot.yaml").write_text(MODEL.replace("rows.csv", f"rows.csv, suite: {suite}"))
        request.getfixturevalue("committed")
        (project / suite).write_text(f"expectations: [{{name: more, type: x}}, {rule % 20}]\n")
        _, said = run(project, base="HEAD")
        assert "suite.length.kwargs.max_value: 10 -> 20 (validates anew)" in said
        assert "suite.more.type: - -> x" in said

    def test_prices_concern_models_in_a_cluster_alone(self, project: Path, request: Any) -> None:
        (project / "include/prices.yaml").write_text("gpus: {l4: 1.0}\n")
        (project / "include/models/there.yaml").write_text(f"{MODEL}compute: kubernetes\n")
        request.getfixturevalue("committed")
        (project / "include/prices.yaml").write_text("gpus: {l4: 2.0}\n")
        _, said = run(project, base="HEAD")
        assert said.count("prices.gpus.l4: 1.0 -> 2.0 (from the next plan on)") == 1
        assert said.count("none; compared with HEAD") == 1

    def test_a_removed_model_is_named_with_what_goes_and_what_stays(self, committed: Path, tmp_path: Path) -> None:
        (committed / "include/models/bot.yaml").unlink()
        assert (
            "removed: bot (its file was in HEAD): its DAGs go, with their schedules" in run(committed, base="HEAD")[1]
        )
        store = Store.open(tmp_path / "store")
        Ledger(store, "bot").append(
            Action.PROMOTE, 3, "0" * 64, actor="me", reason="test", evidence={}, expected_epoch=0
        )
        _, said = run(committed, store=store)
        assert "removed: bot (it has no file)" in said
        assert "its champion v3 serves on" in said

    def test_a_file_that_was_not_valid_is_told_from_one_that_was_not_there(self, project: Path, request: Any) -> None:
        (project / "include/models/bot.yaml").write_text("data: {}\n")
        request.getfixturevalue("committed")
        (project / "include/models/bot.yaml").write_text(MODEL)
        assert "none; compared with nothing, it was not valid in HEAD" in run(project, base="HEAD")[1]

    def test_without_a_ref_it_says_so_and_how_to_name_one(self, project: Path) -> None:
        assert "warning: no git ref to compare with" in run(project)[1]
        assert "make check BASE=origin/main" in run(project)[1]

    def test_a_ref_that_git_does_not_know_is_no_silent_pass(
        self, committed: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--root", str(committed), "--base", "origin/main"]) == 1
        assert "git knows no 'origin/main'" in capsys.readouterr().out
