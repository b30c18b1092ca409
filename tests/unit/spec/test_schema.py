from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from genai_operators.spec.schema import SCHEMA_FILE, main, render_schema

ROOT = Path(__file__).parents[3]


class TestCommittedSchema:
    def test_is_what_the_code_says(self) -> None:
        assert (ROOT / SCHEMA_FILE).read_text() == render_schema(), "run: python -m genai_operators.spec.schema"

    def test_a_stale_one_is_noticed_and_mended(self, tmp_path: Path) -> None:
        file = tmp_path / "schema.json"
        file.write_text("{}")
        assert main(["--check", "--file", str(file)]) == 1
        assert main(["--file", str(file)]) == 0
        assert main(["--check", "--file", str(file)]) == 0

    @pytest.mark.parametrize("model", sorted((ROOT / "include/models").glob("*.yaml")), ids=lambda path: path.stem)
    def test_accepts_the_models_of_this_project(self, model: Path) -> None:
        jsonschema.validate(yaml.safe_load(model.read_text()), json.loads(render_schema()))

    @pytest.mark.parametrize(
        "wrong", [{}, {"data": {"train": 1}}, {"data": {"train": "x"}, "trian": {}}, {"data": {"train": []}}]
    )
    def test_refuses_what_the_loader_refuses(self, wrong: object) -> None:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, json.loads(render_schema()))

    def test_every_field_is_explained(self) -> None:
        schema = json.loads(render_schema())
        sections = {"ModelSpec": schema, **schema["$defs"]}
        silent = [
            f"{name}.{key}"
            for name, section in sections.items()
            for key, value in section.get("properties", {}).items()
            if not value.get("description")
        ]
        assert silent == []
