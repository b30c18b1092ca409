from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from genai_operators.decisions.gpu_catalogue import CATALOGUE
from genai_operators.exceptions import SpecError
from genai_operators.spec.compute import Gpus, GpuType
from genai_operators.spec.loader import ModelFile, read_model, read_models, read_recipe
from genai_operators.spec.model import ModelSpec

Read = Callable[[str], ModelFile]

SMALLEST = """\
description: Names the topic of a bank message
owner: bank-team
data:
  train: data/banking/train.csv
  answer: "{category}"
"""


class TestValidFile:
    def test_five_lines_are_enough(self, read: Read) -> None:
        model = read(SMALLEST)
        assert model.message == ""
        assert model.spec is not None
        assert model.spec.data.train == ("data/banking/train.csv",)
        assert len(SMALLEST.splitlines()) == 5

    def test_only_the_training_data_has_no_default(self, read: Read) -> None:
        assert read("data: {train: rows.csv}\n").spec is not None

    def test_written_out_with_its_defaults_it_is_the_same_spec(self, read: Read) -> None:
        spec = read(SMALLEST).spec
        assert spec is not None
        assert ModelSpec.model_validate(spec.to_json()) == spec

    def test_compute_may_be_a_name_or_a_mapping(self, read: Read) -> None:
        by_name, by_mapping = read(f"{SMALLEST}compute: local\n"), read(f"{SMALLEST}compute: {{target: local}}\n")
        assert by_name.spec is not None
        assert by_name.spec == by_mapping.spec

    def test_gpus_may_be_a_name_or_a_mapping(self, read: Read) -> None:
        texts = ("h100", "{type: h100}", "{type: h100, count: 4}", "auto")
        specs = [read(f"{SMALLEST}compute: {{target: kubernetes, gpu: {text}}}\n").spec for text in texts]
        wishes = [spec.compute.gpu if spec else None for spec in specs]
        assert wishes[0] == wishes[1] == Gpus(type=GpuType.H100)
        assert wishes[2:] == [Gpus(type=GpuType.H100, count=4), Gpus()]


class TestGpuTypes:
    def test_are_those_of_the_catalogue(self) -> None:
        assert {kind.value for kind in GpuType} == {*CATALOGUE, "auto", "none"}


class TestWrongFile:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "data: {train: x}\ntrian: {}\n",
                "bot.yaml:2:1: unknown key 'trian'; did you mean 'train'? allowed: schema_",
            ),
            (
                "data:\n  train: x\n  format: cvs\n",
                "bot.yaml:3:11: data.format: 'cvs' is not allowed; did you mean 'csv'?",
            ),
            ("data:\n  train: x\n  holdout: 1.5\n", "bot.yaml:3:12: data.holdout: 1.5 should be less than 1"),
            (
                "data: {train: x}\ntrain:\n  timeout: 90\n",
                "bot.yaml:3:12: train.timeout: 90 is not valid: write a number",
            ),
            (
                "data: {train: x, prompt: '{a!r}'}\n",
                "bot.yaml:1:26: data.prompt: '{a!r}' is not valid: only {column} may stand",
            ),
            (
                "data: {train: x, answer: '{a'}\n",
                "data.answer: '{a' is not valid: expected '}' before end of string; write",
            ),
            ("data: {train: x, answer: fine}\n", "data.answer: 'fine' is not valid: names no {column}"),
            ("owner: me\n", "bot.yaml:1:1: data is missing; which rows teach the model"),
            ("data: {}\n", "bot.yaml:1:7: data.train is missing"),
            ("data:\n", "bot.yaml:1:6: data: nothing (null) is not a mapping"),
            ("", "bot.yaml:1:1: data is missing"),
            ("- a\n", "bot.yaml:1:1: ['a'] is not a mapping"),
            ("data:\n\ttrain: x\n", "bot.yaml:2:1: a tab indents this line; YAML wants spaces"),
            ("data:\n  train: x\n  train: y\n", "bot.yaml:3:3: key 'train' occurs twice; the first is on line 2"),
            ("data: {train: [x\n", "bot.yaml:2:1: is not valid YAML"),
            ("data: {train: x}\n---\ndata: {}\n", "bot.yaml:2:1: is not valid YAML"),
            ("data: {train: !!python/name:os.system x}\n", "bot.yaml:1:15: is not valid YAML"),
            ("data: {train: x}\nschema_version: 2\n", "bot.yaml:2:17: schema_version: 2 is not allowed; allowed: 1"),
            (
                "data: {train: x}\ntrain: {recipe: smal}\n",
                "bot.yaml:2:17: train.recipe: no recipe 'smal' in include/recipes; did you mean 'small'?",
            ),
            (
                "data: {train: x}\nserve: {runtime: standrd}\n",
                "bot.yaml:2:18: serve.runtime: 'standrd' is not allowed; did you mean 'standard'?",
            ),
            (
                "data: {train: x, suite: include/suites/mesages.yaml}\n",
                "bot.yaml:1:25: data.suite: no file 'include/suites/mesages.yaml'; did you mean 'include",
            ),
            (
                "data: {train: x}\ncanary:\n  guardrails:\n    error: {}\n",
                "bot.yaml:4:5: unknown key 'error' in canary.guardrails; did you mean 'errors'?",
            ),
            (
                "data: {train: x}\ncanary:\n  steps: [{percent: 50}, {percent: 5}]\n",
                "bot.yaml:3:3: canary: steps must rise; got 50, 5 percent",
            ),
            ("data: {train: x}\ncompute: locl\n", "bot.yaml:2:10: compute.target: 'locl' is not allowed; did you mean"),
            (
                "data: {train: x}\ncompute: {target: kubernetes, gpu: h1000}\n",
                "bot.yaml:2:36: compute.gpu.type: 'h1000' is not allowed; did you mean 'h100'",
            ),
            (
                "data: {train: x}\ncompute:\n  gpu: h100\n",
                "bot.yaml:3:3: compute: gpu is for `target: kubernetes`",
            ),
            (
                "data: {train: x}\ncompute: {target: kubernetes, gpu: none, max_cost: 4}\n",
                "compute: max_cost needs GPUs",
            ),
            (
                "data: {train: x}\ncompute: {target: kubernetes, options: {env: {HF_TOKEN: hf_canary}}}\n",
                "bot.yaml:2:40: compute.options: env 'HF_TOKEN' looks like a credential; name a Secret of the cluster",
            ),
            ("data: {train: x}\nschedule: {drift: 61 * * * *}\n", "schedule.drift: '61 * * * *' is not valid: minute"),
        ],
    )
    def test_says_file_line_value_and_what_is_allowed(self, read: Read, text: str, message: str) -> None:
        model = read(text)
        assert model.spec is None
        assert message in f"{model.message}\n"
        assert len(model.problems) == 1

    def test_every_error_is_reported_at_once_in_the_order_of_the_file(self, read: Read) -> None:
        model = read("trian: {}\ndata:\n  format: cvs\n  outpt: json\nevaluate: {margin: 3}\n")
        assert [problem.line for problem in model.problems] == [1, 3, 3, 4, 5]

    def test_one_wrong_step_is_not_also_called_an_empty_list(self, read: Read) -> None:
        model = read("data: {train: x}\ncanary:\n  steps:\n    - {percent: abc}\n")
        assert len(model.problems) == 1
        assert "canary.steps.0.percent" in model.message

    def test_that_is_not_text_is_reported(self, project: Path) -> None:
        path = project / "include/models/bot.yaml"
        path.write_bytes(b"\xff\xfe\x00")
        assert "cannot be read" in read_model(path, root=project).message

    def test_an_alias_that_contains_itself_ends(self, read: Read) -> None:
        assert "data" in read("data: &a {train: x, more: *a}\n").message


class TestNames:
    @pytest.mark.parametrize("name", ["My Model", "bot__v2", "bot-2", "_bot", "été", "b" * 81])
    def test_that_cannot_name_dags_are_refused_with_a_better_one(self, project: Path, name: str) -> None:
        path = project / "include/models" / f"{name}.yaml"
        path.write_text(SMALLEST)
        model = read_model(path, root=project)
        assert model.spec is None
        assert not model.has_valid_name
        assert "cannot name DAGs; use at most 80 lower-case letters" in model.message

    def test_yml_is_refused_rather_than_overlooked(self, project: Path) -> None:
        (project / "include/models/bot.yml").write_text(SMALLEST)
        (model,) = read_models(project)
        assert "rename it to bot.yaml" in model.message

    def test_one_wrong_file_does_not_hide_the_others(self, project: Path) -> None:
        (project / "include/models/a.yaml").write_text("nonsense: [")
        (project / "include/models/b.yaml").write_text(SMALLEST)
        assert [(model.name, model.spec is not None) for model in read_models(project)] == [("a", False), ("b", True)]

    def test_a_project_without_models_has_none(self, tmp_path: Path) -> None:
        assert list(read_models(tmp_path)) == []


class TestRecipes:
    def test_an_unknown_name_gets_the_nearest(self, project: Path) -> None:
        with pytest.raises(SpecError, match=r"recipe 'smal' is not allowed; did you mean 'small'\?"):
            read_recipe("smal", root=project)

    def test_a_wrong_recipe_names_its_own_line(self, project: Path) -> None:
        (project / "include/recipes/own.yaml").write_text("epochs: 1\nmethod: lorra\n")
        with pytest.raises(
            SpecError, match=r"include/recipes/own.yaml:2:9: method: 'lorra' is not allowed; did you mean"
        ):
            read_recipe("own", root=project)

    def test_epochs_and_steps_exclude_each_other(self, project: Path) -> None:
        (project / "include/recipes/own.yaml").write_text("epochs: 1\nmax_steps: 2\n")
        with pytest.raises(SpecError, match="not both"):
            read_recipe("own", root=project)

    def test_a_new_description_does_not_train_anew(self, project: Path) -> None:
        before = read_recipe("small", root=project).to_json()
        (project / "include/recipes/small.yaml").write_text("description: new words\nmax_steps: 10\n")
        assert read_recipe("small", root=project).to_json() == before


class TestAProjectWithoutInclude:
    """As it is where only the wheel was installed."""

    def test_the_default_recipe_and_suite_say_where_to_get_them(self, tmp_path: Path) -> None:
        path = tmp_path / "include/models/bot.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("data: {train: x}\n")
        message = read_model(path, root=tmp_path).message
        for folder in ("include/recipes", "include/suites"):
            assert f"There is no file in {tmp_path / folder}: copy `{folder}/` of the project" in message

    def test_so_does_a_recipe_that_an_operator_names(self, tmp_path: Path, project: Path) -> None:
        (project / "include/recipes/small.yaml").unlink()
        with pytest.raises(SpecError, match=r"'small' is not allowed.*copy `include/recipes/` of the project"):
            read_recipe("small", root=project)
