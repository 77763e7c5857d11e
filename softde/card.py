"""README.md of an exported prompt: what it is, and a snippet that runs inside the folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NORMS = {"L1": " (L1, sum of absolute errors)", "L2": " (L2, root of the sum of squared errors)"}

QUESTION = """\
How much does a quiet home matter to you?
1 = very much
2 = a good deal
3 = somewhat
4 = a little
5 = not at all
Answer with the number only."""

CARD = """\
---
library_name: peft
pipeline_tag: text-generation
tags: [softde, prompt-tuning]
{base}---

# Soft prompt for {name}

{facts}

{use}

Run inside this folder:

```python
{snippet}
```

`softde.json` says how it was made. It moves a model's answers to a survey; it describes no person.
"""

USE_TOKENS = """\
The {n} virtual tokens replace the embeddings of {n} reserved tokens. {where}:

```text
{soft_prompt}
```"""

WHERE = {
    "late": "Put this string at the very end of the user's message, without a space before it",
    "user_start": "Put this string at the very start of the user's message, without a space after it",
    "system": "Put this string at the very end of the system text, or let it be the whole of it",
}

USE_FRONT = """\
PEFT puts the {n} virtual tokens before everything, the beginning-of-text token included. In a batch padded on the left
the padding would come between: ask one question at a time, or questions of equal length."""

LOAD_TINY = """\
import softde
import torch
from peft import PeftModel

lm = softde.LM.from_pretrained("tiny")
model, tokenizer = lm.model, lm.tokenizer"""

LOAD = """\
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({where})
model = AutoModelForCausalLM.from_pretrained({where})"""

ASK = """\
{load}
model = PeftModel.from_pretrained(model, ".").eval()

{soft}question = \"\"\"{question}\"\"\"
{text}
ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
with torch.inference_mode():
    logits = model(input_ids=ids).logits[0, -1]
{forbid}probabilities, tokens = logits.softmax(-1).topk(5)
print({{tokenizer.decode(t): round(float(p), 3) for p, t in zip(probabilities, tokens)}})"""

CHAT = """\
messages = [{system}{{"role": "user", "content": {content}}}]
text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True{options})"""

PLAIN = 'text = (tokenizer.bos_token or "") + {content} + "\\nAnswer:"'

FORBID = """\
logits[{ids}] = -float("inf")  # the output head shares the rows (in generate: suppress_tokens)
"""


def card(
    provenance: Mapping[str, Any],
    virtual_tokens: int,
    soft_prompt: str = "",
    forbid: Sequence[int] = (),
    chat: bool = True,
    chat_options: Mapping[str, Any] | None = None,
    revision: str | None = None,
    placement: str = "late",
    system_turn: bool = True,
) -> str:
    """The text.

    soft_prompt : the reserved tokens of a prompt inside a message, as one string. forbid : ids that must not be
    answered. placement : where it stands. system_turn : does the chat template have a place for a system text?
    chat : does the tokenizer have a chat template, and with which options was it applied?
    """
    name = str(provenance.get("model") or "NAME OF THE MODEL")
    where = f"{name!r}, revision={revision!r}" if revision else repr(name)
    in_system = placement == "system" and system_turn
    content = "question"
    if soft_prompt and not in_system:
        content = {"late": "question + soft_prompt", "user_start": "soft_prompt + question"}.get(
            placement, 'soft_prompt + "\\n\\n" + question'
        )
    system = '{"role": "system", "content": soft_prompt}, ' if soft_prompt and in_system else ""
    options = "".join(f", {key}={value!r}" for key, value in (chat_options or {}).items())
    snippet = ASK.format(
        load=LOAD_TINY if name == "tiny" else LOAD.format(where=where),
        soft=f"soft_prompt = {soft_prompt!r}\n" if soft_prompt else "",
        question=QUESTION,
        text=CHAT.format(content=content, options=options, system=system) if chat else PLAIN.format(content=content),
        forbid=FORBID.format(ids=list(forbid)) if forbid else "",
    )
    on_the_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists()
    return CARD.format(
        base=f"base_model: {name}\nbase_model_relation: adapter\n" if on_the_hub else "",
        name=name,
        facts=facts(provenance),
        use=(USE_TOKENS if soft_prompt else USE_FRONT).format(
            n=virtual_tokens, soft_prompt=soft_prompt, where=WHERE.get(placement, "")
        ),
        snippet=snippet,
    )


def facts(provenance: Mapping[str, Any]) -> str:
    """The target and the losses, as far as they are known."""
    target, survey = provenance.get("target") or {}, provenance.get("survey") or {}
    before, after = provenance.get("loss_before"), provenance.get("loss_after")
    region, edition, survey_id = target.get("region"), target.get("edition"), survey.get("id")
    known = ["Made by softde."]
    if target.get("kind"):
        return " ".join([*known, *target_facts(provenance)])
    if region:
        known.append(f"Aligned with {region}, edition {edition}, of the survey {survey_id}.")
    if before is not None and after is not None:
        norm = NORMS.get(str(provenance.get("norm")), "")
        weights = provenance.get("weights")
        weighted = f", weighted {', '.join(f'{w:g}' for w in weights)}" if weights else ""
        known.append(f"Distance to its scores{norm}{weighted}: {before:.1f} before, {after:.1f} after.")
    return " ".join(known)


def target_facts(provenance: Mapping[str, Any]) -> list[str]:
    """The same for a target that is not published scores alone, with the items that were held out."""
    from softde.surveys.targets import target_from_dict

    target, survey = target_from_dict(provenance["target"]), provenance.get("survey") or {}
    before, after = provenance.get("loss_before"), provenance.get("loss_after")
    known = [f"Aligned with {target.region}, {target.edition}, of the survey {survey.get('id')}."]
    if before is not None and after is not None:
        known.append(f"Loss, {target.label()}: {before:.4f} before, {after:.4f} after.")
    held = provenance.get("held_out") or {}
    if held.get("loss") is not None and held.get("unprompted_loss") is not None:
        known.append(
            f"On {held['items']} items that were held out: {held['unprompted_loss']:.4f} before, "
            f"{held['loss']:.4f} after."
        )
    return known
