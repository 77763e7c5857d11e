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
    config = AutoConfig.for_model(architecture, vocab_size=vocab_size, **{**sizes, **changes})
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 0, 4, None
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def save(
    folder: Path, architecture: str = "llama", template: str | None = LLAMA3_TEMPLATE, seed: int = 0, **changes: Any
) -> Path:
    """A folder for `LM.from_pretrained`: random weights and the tiny tokenizer."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    make_model(architecture, seed, **changes).save_pretrained(folder)
    make_tokenizer(template).save_pretrained(folder)
    return folder
