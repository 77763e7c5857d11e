"""What humans answered: `load_human` reads any known file; each kind of file has a loader of its own, too."""

from softde.surveys.human.answers import HumanAnswers, Respondents
from softde.surveys.human.culture_spa import load_culture_spa
from softde.surveys.human.global_opinions import load_global_opinions
from softde.surveys.human.loading import answers_of, load_human
from softde.surveys.human.long import load_answers, load_qstn, load_shares
from softde.surveys.human.wide import load_ivs, load_wide, load_wvs

__all__ = [
    "HumanAnswers",
    "Respondents",
    "answers_of",
    "load_answers",
    "load_culture_spa",
    "load_global_opinions",
    "load_human",
    "load_ivs",
    "load_qstn",
    "load_shares",
    "load_wide",
    "load_wvs",
]
