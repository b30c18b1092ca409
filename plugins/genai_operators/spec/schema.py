"""The JSON Schema of model files, for editors: ``python -m genai_operators.spec.schema [--check]``.

Generated and committed at include/schema/model.schema.json; a test fails when it is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from genai_operators.spec.model import ModelSpec

SCHEMA_FILE = "include/schema/model.schema.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def model_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a model file, with descriptions and defaults for completion."""
    schema = ModelSpec.model_json_schema(mode="validation")
    return {"$schema": _DIALECT, **schema, "title": "Model file"}


def render_schema() -> str:
    """The schema as committed."""
    return json.dumps(model_schema(), indent=2, sort_keys=True) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the schema, or with ``--check`` say whether the committed one is stale (exit 1)."""
    parser = argparse.ArgumentParser(prog="python -m genai_operators.spec.schema", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is stale")
    parser.add_argument("--file", type=Path, default=Path(SCHEMA_FILE))
    options = parser.parse_args(arguments)
    if options.check:
        if options.file.is_file() and options.file.read_text(encoding="utf-8") == render_schema():
            return 0
        print(f"{options.file} is stale; run: python -m genai_operators.spec.schema", file=sys.stderr)
        return 1
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text(render_schema(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
