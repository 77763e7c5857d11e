"""VSM 2013 in Arabic and Chinese: other words, the same numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from softde.surveys import load_survey, shipped_surveys
from softde.surveys.loaders import survey_languages

ENGLISH = load_survey("vsm13")


@pytest.mark.parametrize(("language", "script"), [("ar", "\u0600-\u06ff"), ("zh", "\u4e00-\u9fff")])
def test_other_words_and_the_same_numbers(language: str, script: str) -> None:
    survey = load_survey("vsm13", language=language)
    assert (survey.id, survey.language, survey.item_ids) == (f"vsm13:{language}", language, ENGLISH.item_ids)
    np.testing.assert_array_equal(survey.option_values, ENGLISH.option_values)
    np.testing.assert_array_equal(survey.weights, ENGLISH.weights)
    assert survey.target("India", edition="2015") == ENGLISH.target("India", edition="2015")
    assert survey.digest != ENGLISH.digest
    texts = [survey.instruction, *(i.text for i in survey.items), *(o.text for i in survey.items for o in i.options)]
    for text in texts:
        assert re.search(f"[{script}]", text) and not re.search("[A-Za-z]", text), text
    assert len({item.text for item in survey.items}) == 24
    # m15 to m17 and m20 share five words in opposite orders, as in English
    assert [o.text for o in survey.items[19].options] == [o.text for o in survey.items[14].options][::-1]
    same = [{i.id for i in s.items if i.options == s.items[0].options} for s in (survey, ENGLISH)]
    assert same[0] == same[1] and len(same[0]) == 14


def test_names() -> None:
    assert load_survey("vsm13:zh") is load_survey("vsm13", language="zh")
    assert load_survey("vsm13", language="en") is ENGLISH
    variant = load_survey("vsm13:ar:cat_35_25")
    assert variant == load_survey("vsm13:cat_35_25", language="ar") and variant.id == "vsm13:ar:cat_35_25"
    np.testing.assert_array_equal(variant.weights, load_survey("vsm13:cat_35_25").weights)
    assert survey_languages("vsm13") == ("en", "ar", "zh") and survey_languages("iw") == ("en",)
    assert not any("." in name or ":" in name for name in shipped_surveys())


@pytest.mark.parametrize(
    ("source", "language", "message"),
    [
        ("vsm13", "fr", "survey 'vsm13' comes in en, ar, zh, not in language 'fr'; give a file of yours"),
        ("iw", "zh", "survey 'iw' comes in en, not in language 'zh'"),
        ("vsm13:ar", "zh", "survey 'vsm13:zh' has no variant 'ar'"),
        ("mine.toml", "ar", "language goes with the name of a shipped survey; a file has its own"),
    ],
)
def test_what_is_refused(source: str, language: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_survey(source, language=language)
