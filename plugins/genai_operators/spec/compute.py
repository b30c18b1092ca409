"""``compute``: where workloads run. A name, or a mapping with ``target`` and that target's settings."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, JsonValue, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from genai_operators.spec.credentials import looks_like_credential
from genai_operators.spec.quantities import Duration, PositiveInt, Size
from genai_operators.spec.section import Section


class ComputeTarget(StrEnum):
    """``local``: processes on the worker's own machine. ``kubernetes``: jobs of a cluster."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


class Spot(StrEnum):
    """Whether machines may be taken away, for a lower price. ``preferred``: such ones first, then others."""

    NEVER = "never"
    PREFERRED = "preferred"
    ONLY = "only"


class GpuType(StrEnum):
    """``auto`` asks the GPU plan, ``none`` is a machine without; the others are the names of the GPU catalogue
    (:mod:`genai_operators.decisions.gpu_catalogue`; a test holds the two together).
    """

    AUTO = "auto"
    NONE = "none"
    T4 = "t4"
    L4 = "l4"
    A10G = "a10g"
    RTX4090 = "rtx4090"
    L40S = "l40s"
    A100_40GB = "a100-40gb"
    A100_80GB = "a100-80gb"
    H100 = "h100"
    H200 = "h200"
    B200 = "b200"


class OrOneOf:
    """In the JSON Schema: one of these words instead of the mapping."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Called by pydantic."""
        return {"anyOf": [{"enum": list(self._words)}, handler(schema)]}


class Gpus(Section):
    """A type, and a number of them, instead of the GPU plan's choice."""

    type: GpuType = Field(default=GpuType.AUTO, description="`auto`, `none`, or a name in the GPU catalogue.")
    count: PositiveInt | None = Field(
        default=None, description="GPUs of one machine; for `auto` what the plan finds best, else 1."
    )


class PhaseLimits(Section):
    """How long an attempt may be in a phase."""

    queued: Duration = Field(
        default=timedelta(days=1), description="Waiting for quota; then the next machine of the plan is tried."
    )
    starting: Duration = Field(default=timedelta(minutes=20), description="Getting a machine and pulling the image.")
    running: Duration | None = Field(default=None, description="Computing, one attempt; then it checkpoints and stops.")
    preempted: Duration = Field(
        default=timedelta(hours=1),
        description="Taken away and waiting for another machine of its kind; then the next of the plan is tried.",
    )


def _gpus_by_name(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


GpuWish = Annotated[Gpus, BeforeValidator(_gpus_by_name), OrOneOf(*(gpu.value for gpu in GpuType))]


class Compute(Section):
    """Where validation, training, evaluation and drift checks run. All but target and pool is for `kubernetes`."""

    target: ComputeTarget = Field(default=ComputeTarget.LOCAL, description="Where workloads run.")
    pool: str | None = Field(default=None, description="Airflow pool of the workloads' tasks; it must exist.")
    connection: str = Field(
        default="genai_kubernetes",
        min_length=1,
        description="Airflow connection of the cluster; its extra has the image.",
    )
    gpu: GpuWish = Field(
        default=Gpus(),
        description="`auto` asks the GPU plan, `none` trains on CPUs, or {type: h100, count: 4}.",
    )
    spot: Spot = Field(default=Spot.NEVER, description="Whether machines may be taken away, for a lower price.")
    max_cost: float | None = Field(
        default=None,
        gt=0,
        description="Most that training and evaluation may cost together, in the price file's currency; then it stops.",
    )
    queue: str | None = Field(default=None, min_length=1, description="A Kueue LocalQueue of the namespace.")
    nodes: PositiveInt = Field(default=1, description="Machines of the training; they share each batch.")
    cpu: float | None = Field(default=None, gt=0, description="Cores of one training machine, instead of the plan's.")
    memory: Size | None = Field(default=None, description="Memory of one training machine, instead of the plan's.")
    limits: PhaseLimits = Field(default=PhaseLimits(), description="How long an attempt may wait, start and run.")
    resumes_without_progress: PositiveInt = Field(
        default=3, description="How often in a row it may resume without a newer checkpoint; then it is stopped."
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Settings of the cluster's backend for this model alone, such as image, mig_profile or topology.",
    )

    @model_validator(mode="after")
    def _fits_its_target(self) -> Compute:
        foreign = [name for name in type(self).model_fields if self._is_set(name) and name not in ("target", "pool")]
        if self.target is ComputeTarget.LOCAL and foreign:
            raise ValueError(f"{foreign[0]} is for `target: kubernetes`; `local` takes the machine as it is")
        if self.max_cost is not None and self.gpu.type is GpuType.NONE:
            raise ValueError("max_cost needs GPUs: the price file knows no price of CPUs")
        return self

    @field_validator("options")
    @classmethod
    def _holds_no_credential(cls, options: dict[str, JsonValue]) -> dict[str, JsonValue]:
        env = options.get("env")
        for name, value in env.items() if isinstance(env, dict) else ():
            if looks_like_credential(name, str(value)):
                raise ValueError(
                    f"env {name!r} looks like a credential; name a Secret of the cluster in secret_env or "
                    "env_from_secrets instead"
                )
        return options

    def _is_set(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True))


def _by_name(value: Any) -> Any:
    return {"target": value} if isinstance(value, str) else value


ComputeChoice = Annotated[Compute, BeforeValidator(_by_name), OrOneOf(*(target.value for target in ComputeTarget))]
