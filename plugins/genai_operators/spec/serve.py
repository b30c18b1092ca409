"""``serve``: where the model answers, by which server, and what is kept of its traffic."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from pydantic import Field

from genai_operators.spec.quantities import Duration, Size
from genai_operators.spec.section import Section

STANDARD_RUNTIME = "standard"


class ServingTarget(StrEnum):
    """Where servers run."""

    LOCAL = "local"


class Runtime(Section):
    """A command that serves one model directory over the OpenAI protocol."""

    command: tuple[str, ...] = Field(
        min_length=1,
        description="Program and arguments, with {placeholders}.",
    )


class Capture(Section):
    """What is kept of prompts and answers; ids are hashed, texts lie apart from the facts."""

    retention: Duration = Field(default=timedelta(days=30), description="Captured texts older than this are deleted.")
    max_bytes: Size = Field(default=65_536, description="Longest prompt or answer that is kept, in bytes.")


class Serve(Section):
    """The gateway in front is the same for all models."""

    target: ServingTarget = Field(default=ServingTarget.LOCAL, description="Where model servers run.")
    runtime: str = Field(
        default=STANDARD_RUNTIME, description="Server of new releases: `standard`, or a name in `runtimes`."
    )
    runtimes: dict[str, Runtime] = Field(default={}, description="Your own servers, by name.")
    timeout: Duration = Field(default=timedelta(minutes=2), description="A request that takes longer fails.")
    capture: Capture = Field(default=Capture(), description="What is kept of the traffic, and for how long.")

    @property
    def runtime_names(self) -> tuple[str, ...]:
        """Every server a release of this model may choose; the built-in one first."""
        return (STANDARD_RUNTIME, *(name for name in self.runtimes if name != STANDARD_RUNTIME))
