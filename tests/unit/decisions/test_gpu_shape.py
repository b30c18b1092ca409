"""A model's shape is read from its config.json, and a wrong one is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from genai_operators.decisions.gpu_shape import shape_of_config
from genai_operators.exceptions import ConfigurationError

LLAMA_3_8B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


class TestParameters:
    """Against the counts that the models' authors publish."""

    @pytest.mark.parametrize(
        ("config", "billions"),
        [
            (LLAMA_3_8B, 8.030),
            (
                {
                    "model_type": "qwen",
                    "hidden_size": 4096,
                    "num_hidden_layers": 32,
                    "num_attention_heads": 32,
                    "intermediate_size": 22016,
                    "vocab_size": 151936,
                },
                7.721,
            ),
            (
                {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257},
                0.1236,
            ),
            (
                {
                    "model_type": "mixtral",
                    "hidden_size": 4096,
                    "num_hidden_layers": 32,
                    "num_attention_heads": 32,
                    "num_key_value_heads": 8,
                    "intermediate_size": 14336,
                    "vocab_size": 32000,
                    "num_local_experts": 8,
                    "num_experts_per_tok": 2,
                },
                46.70,
            ),
            (
                {
                    "model_type": "qwen2",
                    "hidden_size": 896,
                    "num_hidden_layers": 24,
                    "num_attention_heads": 14,
                    "num_key_value_heads": 2,
                    "intermediate_size": 4864,
                    "vocab_size": 151936,
                    "tie_word_embeddings": True,
                },
                0.494,
            ),
        ],
        ids=["llama-3-8b", "qwen-7b", "gpt2", "mixtral-8x7b", "qwen2-0.5b"],
    )
    def test_count(self, config: dict[str, Any], billions: float):
        assert shape_of_config(config).parameters / 1e9 == pytest.approx(billions, rel=0.003)

    def test_a_token_passes_two_of_eight_experts(self):
        config = {**LLAMA_3_8B, "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000}
        shape = shape_of_config(config)
        assert shape.active_weights / 1e9 == pytest.approx(12.75, rel=0.01)
        assert shape.parameters / 1e9 == pytest.approx(46.7, rel=0.01)

    def test_a_nested_text_config_is_found(self):
        assert shape_of_config({"model_type": "gemma3", "text_config": LLAMA_3_8B}) == shape_of_config(LLAMA_3_8B)


class TestWrongConfig:
    @pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
    def test_a_missing_field_is_named(self, field: str):
        config = {name: value for name, value in LLAMA_3_8B.items() if name != field}
        with pytest.raises(ConfigurationError, match=field):
            shape_of_config(config)

    def test_a_missing_intermediate_size_is_named(self):
        config = {name: value for name, value in LLAMA_3_8B.items() if name != "intermediate_size"}
        with pytest.raises(ConfigurationError, match="intermediate_size"):
            shape_of_config(config)

    @pytest.mark.parametrize("value", [-1, 0, 4096.0, "4096", True, float("nan")])
    def test_a_number_that_cannot_be(self, value: Any):
        with pytest.raises(ConfigurationError, match="hidden_size"):
            shape_of_config({**LLAMA_3_8B, "hidden_size": value})

    def test_heads_that_cannot_be_shared(self):
        with pytest.raises(ConfigurationError, match="5 key-value heads"):
            shape_of_config({**LLAMA_3_8B, "num_key_value_heads": 5})

    def test_an_architecture_that_is_not_understood(self):
        with pytest.raises(ConfigurationError, match="kv_lora_rank"):
            shape_of_config({**LLAMA_3_8B, "kv_lora_rank": 512})
