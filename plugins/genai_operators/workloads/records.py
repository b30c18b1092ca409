"""The one form of a data set: JSONL of records, each a conversation whose last message is the answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai_operators.exceptions import DataError
from genai_operators.store import canonical_json

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One turn."""

    role: str
    content: str

    def as_dict(self) -> dict[str, str]:
        """As chat templates and OpenAI's API want it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Record:
    """One example. ``source`` says where it is from: ``train``, ``evaluation`` or ``feedback``."""

    id: str
    messages: tuple[Message, ...]
    source: str

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What the model is shown."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """What it should say."""
        return self.messages[-1].content

    @property
    def question(self) -> str:
        """The last thing that the user said."""
        return next((m.content for m in reversed(self.prompt) if m.role == "user"), "")

    @property
    def prompt_digest(self) -> str:
        """sha256 of the prompt with case and white space folded: two rows with the same digest ask the same."""
        return conversation_digest(self.prompt)

    @property
    def digest(self) -> str:
        """sha256 of the whole conversation, folded likewise."""
        return conversation_digest(self.messages)

    def to_line(self) -> str:
        """One line of the file."""
        record = {"id": self.id, "messages": [m.as_dict() for m in self.messages], "source": self.source}
        return json.dumps(record, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Record:
        """:raises KeyError, TypeError: when it is not a record."""
        messages = tuple(Message(role=m["role"], content=m["content"]) for m in record["messages"])
        return cls(id=record["id"], messages=messages, source=record["source"])


def conversation_digest(messages: Sequence[Message]) -> str:
    """sha256 of the messages with case and white space folded."""
    folded = [[m.role, " ".join(m.content.lower().split())] for m in messages]
    return hashlib.sha256(canonical_json(folded)).hexdigest()


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a data set file."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(record.to_line() for record in records)


def read_records(path: Path) -> list[Record]:
    """Read a data set file that :func:`write_records` wrote.

    :raises DataError: naming file and line when it is not one.
    """
    records = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                records.append(Record.from_json(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{path.name}, line {number}: not a record of a validated data set ({type(error).__name__}). "
                    "Run the validation again; it writes this file."
                ) from error
    return records
