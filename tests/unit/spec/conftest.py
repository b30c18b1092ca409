"""A small project folder that tests put model files into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from genai_operators.spec.loader import ModelFile, read_model


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("models", "recipes", "suites"):
        (tmp_path / "include" / folder).mkdir(parents=True)
    (tmp_path / "include/recipes/small.yaml").write_text("max_steps: 10\n")
    (tmp_path / "include/suites/messages.yaml").write_text("{}\n")
    return tmp_path


@pytest.fixture
def read(project: Path) -> Callable[[str], ModelFile]:
    """Write a model file with this text and read it."""

    def write_and_read(text: str) -> ModelFile:
        path = project / "include/models/bot.yaml"
        path.write_text(text)
        return read_model(path, root=project)

    return write_and_read
