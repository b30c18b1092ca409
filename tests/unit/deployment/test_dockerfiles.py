"""The Dockerfiles: no finding of hadolint, every base by version, users by number, nothing of this machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILES = sorted((ROOT / "docker").glob("*/Dockerfile"))


def hadolint(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run([program, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
class TestDockerfile:
    def test_hadolint_finds_nothing(self, path: Path) -> None:
        found = hadolint("--no-color", str(path))
        assert found.returncode == 0, found.stdout

    def test_the_bases_can_be_chosen_and_name_a_version(self, path: Path) -> None:
        text = path.read_text()
        defaults = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", text, re.MULTILINE))
        stages = set(re.findall(r" AS (\w+)$", text, re.MULTILINE))
        for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
            if base not in stages:
                (name,) = re.findall(r"^\$\{(\w+)\}$", base)
                assert ":" in defaults[name]
                assert not defaults[name].endswith(":latest")

    def test_packages_are_installed_through_the_constraints(self, path: Path) -> None:
        for command in re.findall(r"pip install (.*)$", path.read_text(), re.MULTILINE):
            unpinned = [word for word in command.split() if re.fullmatch(r"[a-z][\w-]+", word)]
            assert not unpinned, command
        requirements = {"airflow": ROOT / "requirements.txt", "workload": path.parent / "requirements.txt"}
        if (file := requirements.get(path.parent.name)) is not None:
            assert "-c constraints.txt" in file.read_text().splitlines()

    def test_users_are_numbers_other_than_zero(self, path: Path) -> None:
        users = re.findall(r"^USER (\S+)$", path.read_text(), re.MULTILINE)
        assert all(re.fullmatch(r"[1-9]\d*:\d+", user) for user in users)
        # The model server's and Astro's come from their bases.
        assert users or path.parent.name == "model_server"

    def test_says_whether_it_has_a_health(self, path: Path) -> None:
        assert re.search(r"^HEALTHCHECK ", path.read_text(), re.MULTILINE)

    def test_what_is_copied_is_not_ignored(self, path: Path) -> None:
        allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", path.read_text(), re.MULTILINE):
            for source in line.split():
                assert list(ROOT.glob(source)), source
                assert any(source == name or Path(source).match(name) for name in allowed), f"{source} is ignored"


def test_hadolint_would_find_something() -> None:
    found = hadolint("--no-color", "-", text="FROM debian:latest\nRUN cd /tmp && apt-get install curl\n")
    assert found.returncode == 1
    assert "DL3007" in found.stdout


def test_nothing_private_reaches_an_image() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert lines.index("*") < lines.index("!plugins")
    assert "**/.env" in lines
