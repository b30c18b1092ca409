from __future__ import annotations

import re
from pathlib import Path

from genai_operators.spec.loader import read_model


class TestReadme:
    def test_every_model_file_in_it_is_valid(self, project_root: Path, tmp_path: Path) -> None:
        blocks = re.findall(r"```yaml\n(.*?)```", (project_root / "README.md").read_text(), flags=re.S)
        models = [block for block in blocks if re.search(r"^data:", block, flags=re.M)]
        assert models
        for number, text in enumerate(models):
            path = tmp_path / f"example_{number}.yaml"
            path.write_text(text)
            assert read_model(path, root=project_root).message == ""

    def test_the_smallest_has_five_lines(self, project_root: Path) -> None:
        first = re.search(r"in five lines.*?```yaml\n(.*?)```", (project_root / "README.md").read_text(), flags=re.S)
        assert first is not None
        assert len(first[1].splitlines()) == 5
