"""The example data: reproducible, apart from each other, and with the truth in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.workload_process import ROOT

DATA = ROOT / "include/data/support_bot"


def answers(name: str) -> list[dict[str, str]]:
    lines = (DATA / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(json.loads(line)["messages"][-1]["content"]) for line in lines]


def test_the_generator_writes_the_committed_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "include/data/generate.py"), "--output", str(tmp_path)], check=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in DATA.iterdir()}


def test_no_message_is_in_two_files() -> None:
    texts = [
        json.loads(line)["messages"][0]["content"] for path in DATA.iterdir() for line in path.read_text().splitlines()
    ]
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize("name", ["first", "evaluation", "usual", "later"])
def test_every_answer_is_complete_and_no_intent_is_rare(name: str) -> None:
    found = answers(name)
    assert all(set(answer) == {"intent", "product", "priority"} for answer in found)
    intents = [answer["intent"] for answer in found]
    assert min(intents.count(intent) for intent in set(intents)) > len(intents) / 12


def test_the_later_messages_ask_for_something_new() -> None:
    assert {a["intent"] for a in answers("later")} - {a["intent"] for a in answers("first")} == {"upgrade"}
