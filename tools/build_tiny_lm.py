"""Train the embedded default model from scratch and write softde/lm/tiny.

    python tools/build_tiny_lm.py | tee build.log                          # about 40 minutes on one CPU core
    python tools/report_tiny_lm.py --update docs/tiny_model.md

Everything follows from --seed. The loss of an answer is KL(target ‖ model) on the option tokens plus a squared
error of the expected option value, and two probes that only training uses: the six factor scores, read at the answer,
and each part of a description, read where the part ends. Without the probes the training sits on a plateau, because
persona × item is a pure interaction (docs/tiny_model.md). Effects are amplified early on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tiny_text as text
import torch
import torch.nn.functional as F
from tiny_net import Net, Outputs, Shape, to_llama
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from softde.baselines.wording import wording
from softde.lm.layout import question_text
from softde.surveys import Survey, load_survey

PERSONA = wording("en").persona
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
           "<|finetune_right_pad_id|>"] + [f"<|reserved_special_token_{i}|>" for i in range(64)]  # fmt: skip
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
VOCABULARY = 1408
OPTIONS = 5


def build_tokenizer(survey: Survey, regions: list[str]) -> Tokenizer:
    """Byte-level BPE, trained on the sentences of the training; numbers up to 120 are one token, as in Llama-3."""
    rng = np.random.default_rng(0)
    corpus = [
        question_text(i, order, survey.instruction) for i in survey.items for order in ("forward", "reversed")
    ] * 10
    corpus += [line.format(r=region) for region in regions for line in text.REGION_LINES]
    corpus += [text.describe(rng.uniform(0, 120, 6), rng)[0] for _ in range(4000)]
    corpus += ["user\n\n", "assistant\n\n", "system\n\n"] * 500 + [str(i) for i in range(121)] * 20
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


@dataclass
class Batch:
    """Roots with leaves, and what the probes of their description parts must read: (row, token, factor, value)."""

    roots: list[list[int]] = field(default_factory=list)
    leaves: list[list[list[int]]] = field(default_factory=list)
    root_marks: list[tuple[int, int, int, float]] = field(default_factory=list)
    leaf_marks: list[tuple[int, int, int, float]] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    reversed: list[bool] = field(default_factory=list)


class Teacher:
    """Draws respondents and writes what the model is asked about them."""

    def __init__(self, survey: Survey, tokenizer: Tokenizer, seed: int) -> None:
        self.survey, self.tokenizer, self.rng = survey, tokenizer, np.random.default_rng(seed)
        self.questions = [
            [self.ids(question_text(i, order, survey.instruction)) for order in ("forward", "reversed")]
            for i in survey.items
        ]
        self.bos, self.start, self.stop, self.end = (tokenizer.token_to_id(SPECIAL[i]) for i in (0, 2, 3, 4))
        self.user, self.system, self.cue = (
            self.header("user"),
            self.header("system"),
            [self.end, *self.header("assistant")],
        )
        self.answers = [self.ids(str(k + 1))[0] for k in range(OPTIONS)]
        self.regions = {r: survey.target(r).scores for r in survey.regions(complete=True) if r not in text.HELD_OUT}
        self.names, table = list(self.regions), np.stack(list(self.regions.values()))
        self.mean, self.covariance = table.mean(0), np.cov(table.T)
        self.default = survey.target(*text.DEFAULT_REGION).scores

    def ids(self, words: str) -> list[int]:
        return self.tokenizer.encode(words, add_special_tokens=False).ids

    def header(self, role: str) -> list[int]:
        return [self.start, *self.ids(role), self.stop, *self.ids("\n\n")]

    def persona(self, described: bool) -> tuple[str, np.ndarray, np.ndarray | None]:
        """(text or "", scores, order of a description's factors)."""
        rng = self.rng
        if not described:
            if rng.random() < 0.13:
                return "", self.default, None
            region = self.names[rng.integers(len(self.names))]
            return text.REGION_LINES[rng.integers(len(text.REGION_LINES))].format(r=region), self.regions[region], None
        wide = rng.random() < 0.5
        scores = (
            rng.uniform(0, 105, 6) if wide else rng.multivariate_normal(self.mean, 1.5 * self.covariance).clip(0, 115)
        )
        words, order = text.describe(scores, rng)
        return words, scores, order

    def placed(self, before: list[int], words: str, scores: np.ndarray, order: np.ndarray | None) -> tuple:
        """Ids of `before` and the words, and a mark at the comma or full stop that ends each part of a description."""
        encoding = self.tokenizer.encode(words, add_special_tokens=False)
        if order is None:
            return before + encoding.ids, []
        ends = [i for i, (a, b) in enumerate(encoding.offsets) if words[a:b].rstrip().endswith((",", "."))]
        marks = [(len(before) + i, int(f), (scores[f] - 50) / 25) for i, f in zip(ends, order, strict=True)]
        return before + encoding.ids, marks

    def batches(self) -> list[Batch]:
        """One step: personas before their items, and items before their personas, short ones and descriptions apart."""
        return [self.front(5, 8), self.late(3, 28, described=False), self.late(2, 28, described=True)]

    def front(self, personas: int, items: int) -> Batch:
        """Personas as system text or at the start of the user's turn."""
        rng, batch = self.rng, Batch()
        for row in range(personas):
            words, scores, order = self.persona(rng.random() < 0.5)
            if not words:
                root, marks = [self.bos, *self.user], []
            elif rng.random() < 0.5:
                root, marks = self.placed([self.bos, *self.system], words, scores, order)
                root = [*root, self.end, *self.user]
            else:
                separator = "\n" if rng.random() < 0.7 else " "
                root, marks = self.placed([self.bos, *self.user], words + separator, scores, order)
            batch.roots.append(root)
            batch.root_marks += [(row, *mark) for mark in marks]
            batch.leaves.append([])
            for item in rng.permutation(len(self.questions))[:items]:
                backwards = bool(rng.random() < 0.5)
                batch.leaves[-1].append(self.questions[item][backwards] + self.cue)
                self._expect(batch, scores, int(item), backwards)
        return batch

    def late(self, questions: int, respondents: int, described: bool) -> Batch:
        """Personas at the end of the user's turn."""
        rng, batch = self.rng, Batch()
        for _ in range(questions):
            item, backwards = int(rng.integers(len(self.questions))), bool(rng.random() < 0.5)
            batch.roots.append([self.bos, *self.user, *self.questions[item][backwards]])
            batch.leaves.append([])
            for _ in range(respondents):
                words, scores, order = self.persona(described)
                separator = "\n" if rng.random() < 0.5 else " "
                leaf, marks = self.placed([], separator + words if words else "", scores, order)
                batch.leaf_marks += [(len(batch.scores), *mark) for mark in marks]
                batch.leaves[-1].append(leaf + self.cue)
                self._expect(batch, scores, item, backwards)
        return batch

    @staticmethod
    def _expect(batch: Batch, scores: np.ndarray, item: int, backwards: bool) -> None:
        batch.scores.append(scores)
        batch.items.append(item)
        batch.reversed.append(backwards)

    def targets(self, batch: Batch, amplify: float) -> torch.Tensor:
        """(leaves, options) in the order shown."""
        scores, items = np.array(batch.scores), np.array(batch.items)
        means = text.item_means(self.survey, scores, amplify)[np.arange(len(items)), items]
        shares = text.answer_distribution(means, np.arange(1.0, OPTIONS + 1))
        backwards = np.array(batch.reversed)
        shares[backwards] = shares[backwards][:, ::-1]
        return torch.from_numpy(shares).float()


def losses(net: Net, out: Outputs, batch: Batch, target: torch.Tensor, answers: list[int]) -> dict[str, torch.Tensor]:
    """The four terms, each a mean."""
    logp = out.logits.float().log_softmax(-1)[:, answers]
    values = torch.arange(1.0, OPTIONS + 1)
    expected = (logp.softmax(-1) * values).sum(-1)
    scores = torch.from_numpy((np.array(batch.scores) - 50) / 25).float()
    return {
        "kl": (target * (target.log() - logp)).sum(-1).mean(),
        "mse": (expected - (target * values).sum(-1)).square().mean(),
        "answer": (out.factors.float() - scores).square().mean(),
        "marks": mark_loss(net, out.root_marks, batch.root_marks) + mark_loss(net, out.leaf_marks, batch.leaf_marks),
    }


def mark_loss(net: Net, hidden: torch.Tensor, marks: list[tuple[int, int, int, float]]) -> torch.Tensor:
    if not marks:
        return torch.zeros(())
    rows, tokens, factors, values = zip(*marks, strict=True)
    read = net.probe_mark(hidden[list(rows), list(tokens)])[range(len(marks)), list(factors)]
    return F.mse_loss(read.float(), torch.tensor(values, dtype=torch.float32)) / 2


@torch.no_grad()
def glance(net: Net, teacher: Teacher) -> str:
    """How far some personas are, as sums of six absolute errors: unprompted, regions, descriptions; front / late."""
    rng, survey = np.random.default_rng(5), teacher.survey
    regions, unseen = teacher.names[::8], list(text.HELD_OUT)
    cases = {
        "unprompted": [("", teacher.default)],
        "regions": [(PERSONA.format(region=r), teacher.regions[r]) for r in regions],
        "descriptions": [(text.describe(survey.target(r).scores, rng)[0], survey.target(r).scores) for r in unseen],
    }
    words = []
    for name, rows in cases.items():
        errors = []
        for late in (False, True):
            found = [np.abs(score(net, teacher, persona, late) - scores).sum() for persona, scores in rows]
            errors.append(f"{np.mean(found):.1f}")
        words.append(f"{name} {' / '.join(errors)}")
    return ", ".join(words)


def score(net: Net, teacher: Teacher, persona: str, late: bool) -> np.ndarray:
    pairs = [q for orders in teacher.questions for q in orders]
    if late:
        tail = (teacher.ids("\n" + persona) if persona else []) + teacher.cue
        out = net([[teacher.bos, *teacher.user, *q] for q in pairs], [[tail]] * len(pairs))
    else:
        system = [*teacher.system, *teacher.ids(persona), teacher.end] if persona else []
        out = net([[teacher.bos, *system, *teacher.user]], [[q + teacher.cue for q in pairs]])
    shares = out.logits[:, teacher.answers].double().softmax(-1).view(-1, 2, OPTIONS)
    shares = (shares[:, 0] + shares[:, 1].flip(-1)) / 2
    return teacher.survey.score((shares * torch.arange(1.0, OPTIONS + 1)).sum(-1).numpy())


def train(net: Net, teacher: Teacher, steps: int, every: int) -> None:
    hidden = [p for p in net.layers.parameters() if p.ndim == 2]
    others = [p for p in net.parameters() if not any(p is h for h in hidden)]
    optimizers = [
        torch.optim.Muon(hidden, lr=0.02, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0),
    ]
    rates = [group["lr"] for o in optimizers for group in o.param_groups]
    started, sums = time.perf_counter(), {}
    for step in range(steps):
        done = step / steps
        rate = min(1.0, (step + 1) / 50) * min(1.0, (1 - done) / 0.65)
        for group, base in zip((g for o in optimizers for g in o.param_groups), rates, strict=True):
            group["lr"] = base * rate
        amplify = 1 + max(0.0, 1 - done / 0.3)
        terms = {"kl": 0.0, "mse": 0.0, "answer": 0.0, "marks": 0.0}
        batches = teacher.batches()
        answers = sum(len(batch.items) for batch in batches)
        for batch in batches:
            target = teacher.targets(batch, amplify)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = net(batch.roots, batch.leaves)
                parts = losses(net, out, batch, target, teacher.answers)
                share = len(batch.items) / answers
                total = (
                    parts["kl"] + (1 if done < 0.4 else 4) * parts["mse"] + parts["answer"] + parts["marks"]
                ) * share
            total.backward()
            terms = {k: v + float(parts[k].detach()) * share for k, v in terms.items()}
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad()
        sums = {k: sums.get(k, 0.0) + v for k, v in terms.items()}
        if (step + 1) % every == 0 or step + 1 == steps:
            shown = "  ".join(f"{k} {v / (step % every + 1):.4f}" for k, v in sums.items())
            print(
                f"{time.perf_counter() - started:6.0f} s  step {step + 1}/{steps}  {shown}  {glance(net, teacher)}",
                flush=True,
            )
            sums = {}


def export(net: Net, tokenizer: Tokenizer, folder: Path) -> None:
    """A Hugging Face folder: float16 weights, the tokenizer, Llama-3's chat template."""
    from transformers import PreTrainedTokenizerFast

    begin, _, _, _, end, pad = SPECIAL[:6]
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=pad, clean_up_tokenization_spaces=False,
        model_max_length=2048, additional_special_tokens=[s for s in SPECIAL if s not in (begin, end, pad)],
    )  # fmt: skip
    wrapped.chat_template = CHAT_TEMPLATE
    ids = {name: tokenizer.token_to_id(token) for name, token in
           (("bos_token_id", begin), ("eos_token_id", end), ("pad_token_id", pad))}  # fmt: skip
    to_llama(net, **ids).half().save_pretrained(folder)
    wrapped.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("softde/lm/tiny"))
    parser.add_argument("--steps", type=int, default=5500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=250, help="steps between two lines of the log")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small matrices; a second thread waits more than it works
    torch.manual_seed(arguments.seed)
    survey = load_survey("vsm13")
    tokenizer = build_tokenizer(survey, list(survey.regions()))
    teacher = Teacher(survey, tokenizer, arguments.seed)
    net = Net(Shape(tokenizer.get_vocab_size()))
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters, {len(teacher.names)} regions, "
          f"{len(text.HELD_OUT)} held out")  # fmt: skip
    started = time.perf_counter()
    train(net, teacher, arguments.steps, arguments.every)
    export(net, tokenizer, arguments.out)
    print(f"trained in {(time.perf_counter() - started) / 60:.0f} minutes; wrote {arguments.out}")


if __name__ == "__main__":
    main()
