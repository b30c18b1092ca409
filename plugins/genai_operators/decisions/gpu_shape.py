"""The shape of a decoder-only language model, from its ``config.json``: what all bytes and FLOPs are counted from.

Pure: takes the parsed mapping, opens no file and downloads nothing. Field names of the Llama, Qwen, Mistral, Gemma,
Phi-3, GPT-2, GPT-NeoX, ChatGLM and Mixtral families are understood, also below ``text_config``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genai_operators.exceptions import ConfigurationError

_ALIASES = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "multi_query_group_num", "num_kv_heads", "n_head_kv"),
    "head_size": ("head_dim", "kv_channels", "attention_head_dim"),
    "intermediate": ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim"),
    "vocabulary": ("padded_vocab_size", "vocab_size"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_per_token": ("num_experts_per_tok", "num_experts_per_token", "moe_top_k"),
}
_REQUIRED = ("hidden", "layers", "heads", "vocabulary")
_UNGATED = frozenset({"gpt2", "gpt_neox", "gptj", "gpt_bigcode", "opt", "bloom", "falcon", "phi", "starcoder2", "mpt"})
"""Model types whose feed-forward block has two matrices, not three."""

_TIED_UNLESS_SAID = frozenset({"gpt2", "gpt_bigcode", "gemma", "gemma2", "gemma3", "gemma3_text", "bloom", "falcon"})
"""Model types whose class ties input and output embeddings although their ``config.json`` may not say so."""

_FUSED_QKV = frozenset(
    {"qwen", "chatglm", "baichuan", "gpt2", "gpt_neox", "gpt_bigcode", "bloom", "falcon", "mpt", "phi3"}
)
"""Model types with one matrix for queries, keys and values."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One linear map of a layer, ``outputs x inputs`` weights, there ``count`` times (experts)."""

    name: str
    inputs: int
    outputs: int
    count: int = 1

    @property
    def weights(self) -> int:
        """Weights of all copies."""
        return self.inputs * self.outputs * self.count


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Dimensions of a decoder-only transformer.

    :param hidden: width of the residual stream. :param head_size: width of one attention head.
    :param kv_heads: heads of keys and values (grouped-query attention); equals ``heads`` without it.
    :param intermediate: width of the feed-forward block (of one expert). :param gated: three matrices, not two.
    :param experts: 0 in a dense model. :param shared_intermediate: width of an always active expert; 0 without.
    :param tied: output embedding shares the input embedding's weights.
    :param fused_qkv: queries, keys and values come from one matrix, so one adapter serves all three.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    gated: bool = True
    tied: bool = False
    experts: int = 0
    experts_per_token: int = 0
    shared_intermediate: int = 0
    fused_qkv: bool = False

    def __post_init__(self) -> None:
        counts = ("hidden", "layers", "heads", "kv_heads", "head_size", "intermediate", "vocabulary")
        wrong = [f"{name} = {getattr(self, name)!r}" for name in counts if not _is_count(getattr(self, name))]
        if wrong:
            raise ConfigurationError(f"model config: {', '.join(wrong)}; each must be a whole number above zero")
        if self.heads % self.kv_heads:
            raise ConfigurationError(f"model config: {self.heads} heads cannot share {self.kv_heads} key-value heads")
        if self.experts and not 1 <= self.experts_per_token <= self.experts:
            raise ConfigurationError(
                f"model config: {self.experts} experts, {self.experts_per_token} per token: cannot be"
            )

    @property
    def attention_width(self) -> int:
        """Of all query heads together."""
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        """Of all key heads together; the values' too."""
        return self.kv_heads * self.head_size

    @property
    def active_intermediate(self) -> int:
        """Feed-forward width that one token passes."""
        return self.intermediate * (self.experts_per_token if self.experts else 1) + self.shared_intermediate

    def matrices(self) -> tuple[Matrix, ...]:
        """Every linear map of one layer."""
        widths = {"q_proj": self.attention_width, "k_proj": self.kv_width, "v_proj": self.kv_width}
        if self.fused_qkv:
            widths = {"qkv_proj": sum(widths.values())}
        attention = tuple(Matrix(name=n, inputs=self.hidden, outputs=width) for n, width in widths.items())
        attention += (Matrix(name="o_proj", inputs=self.attention_width, outputs=self.hidden),)
        router = (Matrix(name="router", inputs=self.hidden, outputs=self.experts),) if self.experts else ()
        shared = self._feed_forward("shared_", self.shared_intermediate, 1) if self.shared_intermediate else ()
        return attention + router + self._feed_forward("", self.intermediate, max(self.experts, 1)) + shared

    def _feed_forward(self, prefix: str, width: int, count: int) -> tuple[Matrix, ...]:
        names = ("gate_proj", "up_proj") if self.gated else ("up_proj",)
        rising = tuple(Matrix(name=prefix + n, inputs=self.hidden, outputs=width, count=count) for n in names)
        return (*rising, Matrix(name=prefix + "down_proj", inputs=width, outputs=self.hidden, count=count))

    @property
    def layer_weights(self) -> int:
        """Weights of the matrices of one layer."""
        return sum(matrix.weights for matrix in self.matrices())

    @property
    def linear_weights(self) -> int:
        """Weights of the matrices of all layers; what quantisation and LoRA act on."""
        return self.layers * self.layer_weights

    @property
    def embedding_weights(self) -> int:
        """Input and output embedding; tied ones count once."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All parameters. Biases are left out (below 0.1 %); norms are counted."""
        return self.linear_weights + self.embedding_weights + (2 * self.layers + 1) * self.hidden

    @property
    def active_weights(self) -> int:
        """Matrix weights that one token is multiplied with: active experts, and the output embedding."""
        idle = self.experts - self.experts_per_token if self.experts else 0
        expert = (3 if self.gated else 2) * self.hidden * self.intermediate
        return self.layers * (self.layer_weights - idle * expert) + self.vocabulary * self.hidden


def shape_of_config(config: Mapping[str, Any]) -> ModelShape:
    """Read a parsed ``config.json``.

    :raises ConfigurationError: a field is missing or cannot be; the message names it and the spellings looked for.
    """
    text = config.get("text_config")
    fields: Mapping[str, Any] = {**config, **text} if isinstance(text, Mapping) else config
    kind = str(fields.get("model_type", "")).lower()
    if fields.get("kv_lora_rank"):
        raise ConfigurationError(
            f"model config: kv_lora_rank (multi-head latent attention, model_type {kind!r}) is not understood yet"
        )
    found = {name: next((fields[a] for a in spellings if fields.get(a) is not None), None)
             for name, spellings in _ALIASES.items()}  # fmt: skip
    missing = [f"{_ALIASES[name][0]} (or {', '.join(_ALIASES[name][1:])})" for name in _REQUIRED if found[name] is None]
    if missing:
        raise ConfigurationError(f"model config: {'; '.join(missing)} missing; is this the config.json of a decoder?")
    hidden, heads = _count(found["hidden"], "hidden"), _count(found["heads"], "heads")
    experts = _optional_count(found["experts"], "experts")
    return ModelShape(
        hidden=hidden,
        layers=_count(found["layers"], "layers"),
        heads=heads,
        kv_heads=_kv_heads(fields, found["kv_heads"], heads),
        head_size=_optional_count(found["head_size"], "head_size") or hidden // heads,
        intermediate=_intermediate(fields, found["intermediate"], kind=kind, hidden=hidden, experts=experts),
        vocabulary=_count(found["vocabulary"], "vocabulary"),
        gated=kind not in _UNGATED,
        tied=bool(fields.get("tie_word_embeddings", config.get("tie_word_embeddings", kind in _TIED_UNLESS_SAID))),
        experts=experts,
        experts_per_token=_optional_count(found["experts_per_token"], "experts_per_token"),
        shared_intermediate=_optional_count(fields.get("shared_expert_intermediate_size"), "shared experts"),
        fused_qkv=kind in _FUSED_QKV,
    )


def _kv_heads(fields: Mapping[str, Any], value: Any, heads: int) -> int:
    if fields.get("multi_query") is True and value is None:
        return 1
    return heads if value is None or fields.get("multi_query_attention") is False else _count(value, "kv_heads")


def _intermediate(fields: Mapping[str, Any], value: Any, *, kind: str, hidden: int, experts: int) -> int:
    if experts and fields.get("moe_intermediate_size") is not None:
        return _count(fields["moe_intermediate_size"], "moe_intermediate_size")
    if value is None:
        if kind in _UNGATED:
            return 4 * hidden  # the default of these model classes
        raise ConfigurationError(
            f"model config: intermediate_size (or {', '.join(_ALIASES['intermediate'][1:])}) missing"
        )
    # The first Qwen counts both halves of its gated block in one number.
    return _count(value, "intermediate") // (2 if kind == "qwen" else 1)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _count(value: Any, name: str) -> int:
    if not _is_count(value):
        raise ConfigurationError(
            f"model config: {_ALIASES.get(name, (name,))[0]} = {value!r}; it must be a whole number above zero"
        )
    return int(value)


def _optional_count(value: Any, name: str) -> int:
    return 0 if value in (None, 0) else _count(value, name)
