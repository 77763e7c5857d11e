"""CultureSPA (Xu et al., NAACL 2025, arXiv 2410.12971), in four stages, each from file to file."""

from softde.baselines.culture_spa.answer import answer
from softde.baselines.culture_spa.answers import Answers, load_answers
from softde.baselines.culture_spa.collect import (
    Collected,
    Collection,
    collect,
    collected_answers,
    collected_target,
    load_collection,
)
from softde.baselines.culture_spa.files import load_questions, load_seeds
from softde.baselines.culture_spa.generate import Generated, generate
from softde.baselines.culture_spa.prompts import aware, unaware
from softde.baselines.culture_spa.questions import TOPICS, Question, Sifted, as_survey, seeds_of, sift, wvs_topic
from softde.baselines.culture_spa.train import LoRA, train
from softde.baselines.culture_spa.writing import LMWriter, Writer, Written

__all__ = [
    "TOPICS",
    "Answers",
    "Collected",
    "Collection",
    "Generated",
    "LMWriter",
    "LoRA",
    "Question",
    "Sifted",
    "Writer",
    "Written",
    "answer",
    "as_survey",
    "aware",
    "collect",
    "collected_answers",
    "collected_target",
    "generate",
    "load_answers",
    "load_collection",
    "load_questions",
    "load_seeds",
    "seeds_of",
    "sift",
    "train",
    "unaware",
    "wvs_topic",
]
