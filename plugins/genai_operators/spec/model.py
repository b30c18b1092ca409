"""One model file as a record. Only ``data.train`` has no default."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from genai_operators.spec.canary import Canary
from genai_operators.spec.compute import Compute, ComputeChoice
from genai_operators.spec.data import Data
from genai_operators.spec.drift import Drift
from genai_operators.spec.evaluate import Evaluate
from genai_operators.spec.governance import Governance
from genai_operators.spec.policy import Policy
from genai_operators.spec.schedule import Schedule
from genai_operators.spec.section import Section
from genai_operators.spec.serve import Serve
from genai_operators.spec.train import Train

SCHEMA_VERSION: Literal[1] = 1


class ModelSpec(Section):
    """What ``include/models/<name>.yaml`` says. The model's name is the file's."""

    schema_version: Literal[1] = Field(default=SCHEMA_VERSION, description="Version of this file format.")
    description: str = Field(default="", description="What the model does, in a line; shown in the UI.")
    owner: str = Field(default="genai", min_length=1, description="Who answers for the model; shown in the UI.")
    data: Data = Field(description="Which rows teach the model.")
    train: Train = Field(default=Train(), description="How it is trained.")
    evaluate: Evaluate = Field(default=Evaluate(), description="What a candidate must prove on held-out rows.")
    serve: Serve = Field(default=Serve(), description="Where it answers.")
    canary: Canary = Field(default=Canary(), description="How a candidate earns traffic.")
    drift: Drift = Field(default=Drift(), description="When the traffic counts as changed.")
    policy: Policy = Field(default=Policy(), description="When it is retrained by itself.")
    governance: Governance = Field(default=Governance(), description="Who must agree.")
    schedule: Schedule = Field(default=Schedule(), description="What happens by itself, and when.")
    compute: ComputeChoice = Field(default=Compute(), description="Where workloads run.")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types with every default written out; validates back to an equal spec."""
        return self.model_dump(mode="json")
