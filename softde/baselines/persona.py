"""The persona prompt: the model is told whom to answer as, in words."""

from __future__ import annotations

from softde.baselines.wording import adjective, fill, spoken, wording
from softde.condition import Condition
from softde.surveys.checks import need_text


def persona(region: str, template: str | None = None, language: str = "en") -> Condition:
    """A condition whose system text names a region: culture-aware prompting, P1 of Xu et al. (arXiv 2410.12971).

    region : as it should stand in an English sentence, whether a survey knows it or not; in Arabic and Chinese, regions
        that softde knows by name or code get their name there.
    template : a sentence with the place {region}, or {adjective} for the region's English adjective, as
        `wording("en").background` has it; None is `wording(language).persona`.

    Raises
    ------
    ValueError
        No region; neither place is in the template; no adjective is known; no texts in the language.
    """
    text = wording(language).persona if template is None else template
    need_text(region, "region")
    name = region if language == "en" else spoken(region, language)
    if "{adjective}" in text:
        return Condition(name="persona", system=fill(text, (), {"region": name, "adjective": adjective(region)}))
    return Condition(name="persona", system=fill(text, ("region",), {"region": name}))
