"""What a project says, or said at a git ref, with every default and every file that a model names written out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from genai_operators.exceptions import ConfigurationError
from genai_operators.spec.compute import ComputeTarget
from genai_operators.spec.loader import MODELS, RECIPES, model_files
from genai_operators.spec.model import ModelSpec
from genai_operators.spec.recipe import Recipe
from genai_operators.spec.yaml_nodes import YamlError, parse_yaml

PRICES = "include/prices.yaml"


@dataclass(frozen=True)
class Project:
    """The YAML files of a project, by path from its root.

    :param where: how a message calls it: a git ref, or ``here``.
    :param models: names of its model files, sorted.
    :param read: a file's text; ``None`` where there is none.
    """

    where: str
    models: tuple[str, ...]
    read: Callable[[str], str | None]

    @classmethod
    def here(cls, root: Path) -> Project:
        """As the files are now."""

        def read(path: str) -> str | None:
            return (root / path).read_text("utf-8") if (root / path).is_file() else None

        return cls("here", tuple(path.stem for path in model_files(root)), cache(read))

    @classmethod
    def at(cls, ref: str, *, root: Path) -> Project:
        """As they were at a git ref.

        :raises ConfigurationError: git does not know the ref, or this is no git checkout.
        """
        found = _git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        if found is None:
            raise ConfigurationError(
                f"there is nothing to compare with: git knows no {ref!r} in {root}. Name a ref that is here "
                "(`make check BASE=...`, `--base`), or get it first: `git fetch origin main`, then BASE=FETCH_HEAD"
            )
        commit = found.strip()
        listed = (_git(root, "ls-tree", "--name-only", commit, f"{MODELS}/") or "").splitlines()
        models = sorted(Path(path).stem for path in listed if path.endswith(".yaml"))
        return cls(ref, tuple(models), cache(lambda path: _git(root, "show", f"{commit}:./{path}")))

    def resolved(self, model: str) -> dict[str, Any] | None:
        """A model file with its defaults, then the recipes, suite and prices that it uses.

        ``None`` if there is no such file, or none that is valid.
        """
        try:
            spec = ModelSpec.model_validate(self._yaml(f"{MODELS}/{model}.yaml"))
        except ValueError:
            return None
        record = {
            **spec.to_json(),
            "recipe": self._recipe(spec.train.recipe),
            "suite": self._suite(spec.data.suite),
        }
        if spec.train.refresh:
            record["refresh"] = self._recipe(spec.train.refresh)
        if spec.compute.target is not ComputeTarget.LOCAL:
            record["prices"] = self._yaml(PRICES)
        return record

    def _recipe(self, name: str) -> Any:
        try:
            return Recipe.model_validate(self._yaml(f"{RECIPES}/{name}.yaml")).to_json()
        except ValueError:
            return None

    def _suite(self, path: str) -> Any:
        """Its expectations by name, so that one more in the middle is one change."""
        suite = self._yaml(path)
        listed = suite.get("expectations") if isinstance(suite, Mapping) else None
        if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
            return suite
        return {str(one.get("name")): {key: value for key, value in one.items() if key != "name"} for one in listed}

    def _yaml(self, path: str) -> Any:
        """``None`` where there is no such file, or none that is YAML."""
        text = self.read(path)
        try:
            return None if text is None else parse_yaml(text).value
        except YamlError:
            return None


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; ``None`` if it refuses, or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, encoding="utf-8", check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
