"""Reads model files and recipes. A wrong file never raises while DAGs are parsed: it comes back with its problems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from genai_operators.exceptions import SpecError
from genai_operators.spec.model import ModelSpec
from genai_operators.spec.problems import Problem, choice, nearest, problems_of
from genai_operators.spec.recipe import Recipe
from genai_operators.spec.section import Section
from genai_operators.spec.yaml_nodes import Document, Place, YamlError, parse_yaml

MODELS = "include/models"
RECIPES = "include/recipes"
SUITES = "include/suites"
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
#: Airflow allows 250 characters in a DAG id and 100 in a tag.
LONGEST_NAME = 80

_Section = TypeVar("_Section", bound=Section)


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """One file of include/models: a spec, or what is wrong with it."""

    name: str
    path: Path
    spec: ModelSpec | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def has_valid_name(self) -> bool:
        """Whether DAGs can be named after the file."""
        return is_model_name(self.name)

    @property
    def message(self) -> str:
        """Every problem on its own line; empty for a valid file."""
        return "\n".join(str(problem) for problem in self.problems)


def is_model_name(name: str) -> bool:
    """Lower-case letters, digits, single underscores; not too long. It becomes DAG ids, URIs and gateway routes."""
    return len(name) <= LONGEST_NAME and bool(_NAME.fullmatch(name)) and "__" not in name


def model_files(root: Path) -> list[Path]:
    """The model files of a project, sorted by name. ``.yml`` is found too, only to be refused with a clear message."""
    folder = root / MODELS
    return sorted(path for path in folder.glob("*.y*ml") if path.suffix in (".yaml", ".yml")) if folder.is_dir() else []


def read_models(root: Path) -> Iterator[ModelFile]:
    """Every model file of a project, valid or not."""
    recipes = recipe_names(root)
    for path in model_files(root):
        yield read_model(path, root=root, recipes=recipes)


def read_model(path: Path, *, root: Path, recipes: tuple[str, ...] | None = None) -> ModelFile:
    """Read one model file and check it, also against the recipes and suites it names.

    :param root: the folder that holds ``include/``; paths in the file and in messages count from it.
    :param recipes: names in include/recipes; looked up if not given.
    """
    file = _relative(path, root)
    name_problems = _name_problems(path, file)
    try:
        document, spec = _read(path, file, ModelSpec)
    except _Problems as error:
        return ModelFile(name=path.stem, path=path, problems=(*name_problems, *error.problems))
    recipes = recipe_names(root) if recipes is None else recipes
    problems = [*name_problems, *_reference_problems(spec, file=file, document=document, root=root, recipes=recipes)]
    return ModelFile(name=path.stem, path=path, spec=None if problems else spec, problems=tuple(sorted(problems)))


def recipe_names(root: Path) -> tuple[str, ...]:
    """The recipes of a project, by file name without ending, sorted."""
    folder = root / RECIPES
    return tuple(sorted(path.stem for path in folder.glob("*.yaml"))) if folder.is_dir() else ()


def read_recipe(name: str, *, root: Path) -> Recipe:
    """The recipe of that name.

    :raises SpecError: no such recipe (with the nearest name), or a wrong file, with every problem.
    """
    names = recipe_names(root)
    if name not in names:
        raise SpecError(f"{RECIPES}: recipe {choice(name, names)}{what_is_missing(RECIPES, root=root)}")
    path = root / RECIPES / f"{name}.yaml"
    try:
        return _read(path, _relative(path, root), Recipe)[1]
    except _Problems as error:
        raise SpecError("\n".join(str(problem) for problem in error.problems)) from error


def what_is_missing(folder: str, *, root: Path) -> str:
    """What to do when a project has none of the files that this package expects there; empty when it has some.

    The wheel holds the code only: recipes and suites are what a user edits.
    """
    if any((root / folder).glob("*.yaml")):
        return ""
    return (
        f". There is no file in {root / folder}: copy `{folder}/` of the project that the wheel was built from to "
        f"{root}, beside `dags/`"
    )


class _Problems(Exception):
    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


def _read(path: Path, file: str, kind: type[_Section]) -> tuple[Document, _Section]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _Problems([Problem.at(file, Place(1, 1), f"cannot be read: {error}")]) from error
    try:
        document = parse_yaml(text)
    except YamlError as error:
        raise _Problems([Problem.at(file, place, message) for place, message in error.problems]) from error
    try:
        return document, kind.model_validate({} if document.value is None else document.value)
    except ValidationError as error:
        raise _Problems(problems_of(error, file=file, document=document, model=kind)) from error


def _name_problems(path: Path, file: str) -> list[Problem]:
    start = Place(1, 1)
    if path.suffix == ".yml":
        return [Problem.at(file, start, f"model files end in .yaml; rename it to {path.stem}.yaml")]
    if not is_model_name(path.stem):
        rule = f"at most {LONGEST_NAME} lower-case letters, digits and single underscores"
        better = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]+", "_", path.stem.lower())).strip("_")[:LONGEST_NAME] or "model"
        return [Problem.at(file, start, f"{path.stem!r} cannot name DAGs; use {rule}, such as {better}.yaml")]
    return []


def _reference_problems(
    spec: ModelSpec, *, file: str, document: Document, root: Path, recipes: tuple[str, ...]
) -> Iterator[Problem]:
    for field in ("recipe", "refresh"):
        name = getattr(spec.train, field)
        if name is not None and name not in recipes:
            place = document.place_of_value(("train", field))
            message = f"train.{field}: no recipe {name!r} in {RECIPES};{nearest(name, recipes)}"
            there = f"there are: {', '.join(recipes) or 'none'}{what_is_missing(RECIPES, root=root)}"
            yield Problem.at(file, place, f"{message} {there}")
    if spec.serve.runtime not in spec.serve.runtime_names:
        place = document.place_of_value(("serve", "runtime"))
        yield Problem.at(file, place, f"serve.runtime: {choice(spec.serve.runtime, spec.serve.runtime_names)}")
    if "://" not in spec.data.suite and not (root / spec.data.suite).is_file():
        place = document.place_of_value(("data", "suite"))
        suites = sorted(_relative(p, root) for p in (root / SUITES).glob("*.yaml"))
        yield Problem.at(
            file,
            place,
            f"data.suite: no file {spec.data.suite!r};{nearest(spec.data.suite, suites)}"
            f" there are: {', '.join(suites) or 'none'}{what_is_missing(SUITES, root=root)}",
        )


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
