"""A recipe: what is trained and how. One file in include/recipes, used by any number of models."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, model_validator

from genai_operators.spec.quantities import PositiveInt
from genai_operators.spec.section import Section

FROM_SCRATCH = "scratch"


class Method(StrEnum):
    """``full`` trains every weight; ``lora`` trains small adapters that are merged into the weights afterwards."""

    FULL = "full"
    LORA = "lora"


class LearningRateSchedule(StrEnum):
    """How the learning rate moves over the steps."""

    COSINE = "cosine"
    ONE_CYCLE = "one_cycle"
    LINEAR = "linear"
    CONSTANT = "constant"


class LossOn(StrEnum):
    """Which tokens are learnt."""

    ANSWER = "answer"
    ALL = "all"


class Architecture(Section):
    """A Llama made from random weights; ignored for a base model that exists."""

    hidden_size: PositiveInt = Field(default=128, description="Width.")
    layers: PositiveInt = Field(default=4, description="Depth.")
    heads: PositiveInt = Field(default=4, description="Attention heads.")
    key_value_heads: PositiveInt = Field(default=2, description="Key and value heads; divides `heads`.")
    intermediate_size: PositiveInt | None = Field(default=None, description="Width of the feed-forward part.")
    max_positions: PositiveInt = Field(default=512, description="Longest sequence the model can ever see.")


class Tokenizer(Section):
    """A byte-level BPE learnt from the training rows; ignored for a base model that exists."""

    vocab_size: PositiveInt = Field(default=512, ge=260, description="Number of tokens, special ones included.")


class Lora(Section):
    """Adapters on all linear layers."""

    r: PositiveInt = Field(default=16, description="Rank.")
    alpha: PositiveInt = Field(default=32, description="Scale; alpha / r multiplies the adapter.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout inside the adapter.")


class Recipe(Section):
    """Everything that decides the weights, besides data and seed."""

    description: str = Field(default="", description="What the recipe is for, in a line.")
    base_model: str = Field(
        default=FROM_SCRATCH, min_length=1, description="`scratch`, a Hugging Face directory or URI, or a hub name."
    )
    architecture: Architecture = Field(default=Architecture(), description="Shape of a model made from scratch.")
    tokenizer: Tokenizer = Field(default=Tokenizer(), description="Tokenizer of a model made from scratch.")
    method: Method = Field(default=Method.FULL, description="Train every weight, or adapters.")
    lora: Lora = Field(default=Lora(), description="The adapters, for `method: lora`.")
    epochs: float | None = Field(default=None, gt=0, description="Passes over the rows.")
    max_steps: PositiveInt | None = Field(default=None, description="Optimiser steps; instead of `epochs`.")
    batch_size: PositiveInt = Field(default=16, description="Rows an optimiser step.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak learning rate.")
    schedule: LearningRateSchedule = Field(
        default=LearningRateSchedule.COSINE, description="How the learning rate moves."
    )
    warmup: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's weight decay.")
    max_length: PositiveInt = Field(
        default=256, description="Longest row, in tokens; longer ones are left out and counted."
    )
    loss_on: LossOn = Field(default=LossOn.ANSWER, description="Learn the answer only, or the whole conversation.")
    save_every_steps: PositiveInt = Field(default=100, description="Steps between checkpoints.")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Number format of the weights.")

    @model_validator(mode="after")
    def _one_length(self) -> Recipe:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("give epochs or max_steps, not both")
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types with every default written out; without the description, which decides nothing."""
        return self.model_dump(mode="json", exclude={"description"})
