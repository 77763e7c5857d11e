"""Tiny random models and a tiny byte-level BPE tokenizer, saved as Hugging Face folders. No downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

LLAMA3_SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(16)),
)
# Llama-3's conversation format: BOS, then "header, blank line, trimmed content, end of turn" for each message.
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CORPUS = (
    "Picture your ideal job. How important is it to have a boss whom you can respect?",
    "1 = very important\n2 = of moderate importance\n3 = undecided\n4 = of little importance\n5 = never",
    "You are a typical person from somewhere. Answer with the number only.\nAnswer: 1",
)
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,
}
GPT2_SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 2048, "initializer_range": 0.3}
MAMBA2_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "head_dim": 8, "num_heads": 8, "state_size": 8,
                "n_groups": 2, "expand": 2, "initializer_range": 0.3, "chunk_size": 16}  # fmt: skip

# Windows and chunks are shorter than every question, and layers of every kind are there.
WINDOW = {"sliding_window": 16}
MIXED = {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
FOUR_MIXED = {**WINDOW, "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
PER_LAYER = {
    **FOUR_MIXED,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 420,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DEEPSEEK = {**EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
            "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
            "num_key_value_heads": 4}  # fmt: skip
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 16}
DELTA_NET = {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
             "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}  # fmt: skip

# Families by name: changes to SIZES; "type" where transformers knows it by another name, None takes a size away.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": WINDOW,
    "mixtral": {**WINDOW, **EXPERTS},
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": EXPERTS,
    "gemma": {},
    "gemma2": WINDOW,
    "gemma3": {**MIXED, "type": "gemma3_text"},
    "gemma3n": {**PER_LAYER, "type": "gemma3n_text", "laurel_rank": 8, "activation_sparsity_pattern": [0.0] * 4,
                "altup_num_inputs": 2},
    "gemma4": {**FOUR_MIXED, "type": "gemma4_text", "hidden_size_per_layer_input": 0, "global_head_dim": 8},
    "gemma4 per-layer": {**PER_LAYER, "type": "gemma4_text", "global_head_dim": 8},
    "phi": {},
    "phi3": WINDOW,
    "gpt2": GPT2_SIZES,
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 2048},
    "falcon": {"head_dim": None},
    "falcon ALiBi": {"type": "falcon", "head_dim": None, "alibi": True},
    "cohere": {"logit_scale": 2.0},
    "cohere2": {**MIXED, "logit_scale": 2.0},
    "granite": {"logits_scaling": 2.0, "embedding_multiplier": 3.0},
    "olmo2": {},
    "stablelm": {},
    "gpt_oss": {**MIXED, **EXPERTS},
    "deepseek_v3": DEEPSEEK,
    "llama4": {**EXPERTS, "type": "llama4_text", "num_hidden_layers": 4, "attention_chunk_size": 16,
               "intermediate_size_mlp": 64},
    "qwen3_next": {**DELTA_NET, **EXPERTS, "shared_expert_intermediate_size": 32},
    "qwen3_5": {**DELTA_NET, "type": "qwen3_5_text"},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64, "mamba_n_groups": 1, "embedding_multiplier": 3.0,
                  "lm_head_multiplier": 0.5},
    "granitemoehybrid": {**MAMBA, **EXPERTS, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 32},
    "mamba": {"state_size": 8},
    "mamba2": MAMBA2_SIZES,
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 16, "lru_width": 32},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "nemotron": {},
    "exaone4": MIXED,
    "glm4": {},
    "smollm3": {"no_rope_layers": [1, 0], "layer_types": ["full_attention"] * 2},
    # the long tail
    "apertus": {},
    "arcee": {},
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "bitnet": {},
    "codegen": {**GPT2_SIZES, "rotary_dim": 8},
    "deepseek_v2": DEEPSEEK,
    "ernie4_5": {},
    "glm": {},
    "glm4_moe": DEEPSEEK,
    "gpt_bigcode": GPT2_SIZES,
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    "gptj": {**GPT2_SIZES, "rotary_dim": 8},
    "helium": {},
    "hunyuan_v1_dense": {},
    "jamba": {**EXPERTS, "attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_period": 2,
              "expert_layer_offset": 1, "use_mamba_kernels": False, "mamba_d_state": 8},
    "jetmoe": {"kv_channels": 8, "num_local_experts": 4},
    "minimax": {**EXPERTS, "layer_types": ["linear_attention", "full_attention"], "block_size": 16},
    "minimax_m2": EXPERTS,
    "ministral": WINDOW,
    "nanochat": {},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 8, "mamba_head_dim": 8,
                   "ssm_state_size": 8, "n_groups": 2, "chunk_size": 16},
    "olmo": {},
    "olmo3": MIXED,
    "olmoe": EXPERTS,
    "persimmon": {},
    "phimoe": EXPERTS,
    "rwkv": {"attention_hidden_size": 32},
    "seed_oss": {},
    "starcoder2": WINDOW,
    "xglm": {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4},
    "zamba2": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "mamba"], "mamba_ngroups": 1,
               "mamba_headdim": 8, "n_mamba_heads": 8, "mamba_d_state": 8, "chunk_size": 16},
}  # fmt: skip
LONG_TAIL = tuple(FAMILIES)[tuple(FAMILIES).index("apertus") :]


def make_tokenizer(template: str | None = LLAMA3_TEMPLATE) -> Any:
    """A byte-level BPE tokenizer with Llama-3's special tokens, digit grouping and, unless None, chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    pieces = r"\p{N}{1,3}|[^\r\n\p{L}\p{N}]?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(LLAMA3_SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    bos = LLAMA3_SPECIALS[0]
    core.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=bos, eos_token="<|eot_id|>")
    tokenizer.chat_template = template
    return tokenizer


def make_model(architecture: str = "llama", seed: int = 0, vocab_size: int = 420, **changes: Any) -> Any:
    """A random causal model of an architecture that transformers knows by name."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"gpt2": GPT2_SIZES, "mamba2": MAMBA2_SIZES}.get(architecture, SIZES)
    wanted = {key: value for key, value in {**sizes, **changes}.items() if value is not None}
    config = AutoConfig.for_model(architecture, vocab_size=vocab_size, **wanted)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 0, 4, None
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def make_family(name: str, seed: int = 0) -> Any:
    """A random model of a family. No parameter stays constant, such as a gate that starts at zero and hides a part.

    Raises
    ------
    LookupError
        The installed transformers does not have it.
    """
    from transformers import AutoConfig

    changes = dict(FAMILIES[name])
    architecture = changes.pop("type", name)
    try:
        AutoConfig.for_model(architecture)
    except ValueError as error:
        raise LookupError(f"this version of transformers has no {architecture}") from error
    model = make_model(architecture, seed, **changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and parameter.min() == parameter.max():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def save(
    folder: Path, architecture: str = "llama", template: str | None = LLAMA3_TEMPLATE, seed: int = 0, **changes: Any
) -> Path:
    """A folder for `LM.from_pretrained`: random weights and the tiny tokenizer."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    make_model(architecture, seed, **changes).save_pretrained(folder)
    make_tokenizer(template).save_pretrained(folder)
    return folder
