"""What the package imports is what its wheel declares: a wheel-only Airflow has nothing else."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "genai_operators"
#: Imported in the workloads' environment alone, which cannot have Airflow; its requirements file declares them.
WORKLOAD_ONLY = {"torch": "torch", "transformers": "transformers", "peft": "peft", "tokenizers": "transformers"}


def closure(requirements: Iterable[str]) -> set[str]:
    """Names of the distributions that these bring, by what is installed here."""
    todo = [(requirement, "") for requirement in map(Requirement, requirements)]
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement, within = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": within}):
            continue
        for extra in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), extra)
            if key not in seen:
                seen.add(key)
                todo += [(Requirement(text), extra) for text in metadata.requires(requirement.name) or ()]
    return {name for name, _ in seen}


def imports_of(file: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, at whatever level."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.fixture(scope="module")
def imported(project_root: Path) -> dict[str, set[Path]]:
    """Third-party module -> the files that import it; a provider of Airflow by its own name."""
    found: dict[str, set[Path]] = {}
    for file in (project_root / "plugins" / PACKAGE).rglob("*.py"):
        for module in imports_of(file):
            provider = re.match(r"airflow\.providers\.(cncf\.kubernetes|\w+)", module)
            name = provider.group() if provider else module.partition(".")[0]
            if name not in sys.stdlib_module_names and name != PACKAGE:
                found.setdefault(name, set()).add(file)
    return found


@pytest.fixture(scope="module")
def declared(project_root: Path) -> set[str]:
    project: dict[str, Any] = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    return closure([*project["dependencies"], *extras])


def test_every_import_is_in_the_closure_of_what_the_wheel_declares(
    imported: dict[str, set[Path]], declared: set[str]
) -> None:
    owners = metadata.packages_distributions()
    missing = {}
    for name in sorted(set(imported) - set(WORKLOAD_ONLY)):
        provider = name.startswith("airflow.providers.")
        distributions = [f"apache-{name.replace('.', '-')}"] if provider else owners.get(name, [name])
        if not declared & {canonicalize_name(distribution) for distribution in distributions}:
            missing[name] = sorted(file.name for file in imported[name])
    assert not missing, "declare these in pyproject.toml, or do without"


def test_what_needs_torch_is_a_workload_and_declared_for_its_environment(
    imported: dict[str, set[Path]], project_root: Path
) -> None:
    lines = (project_root / "docker/workload/requirements.txt").read_text().splitlines()
    required = {Requirement(text).name for line in lines if (text := line.partition("#")[0].strip()) and text[0] != "-"}
    for name, distribution in WORKLOAD_ONLY.items():
        assert distribution in required
        assert {file.parent.name for file in imported[name]} == {"workloads"}, name
