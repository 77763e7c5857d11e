"""Respondents from a file, and `softde administer`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from softde.administer import administer
from softde.cli import run
from softde.design import Design
from softde.lm import LM
from softde.surveys import Survey, load_survey

PEOPLE = """
template = "You are {gender} with {school} schooling."
[attributes.gender]
"a woman" = 0.5
"a man" = 0.5
[attributes.school]
little = 0.25
much = 0.75
[regions.KEN.school]
little = 1
"""
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.toml"
    path.write_text(PEOPLE)
    return path


@pytest.fixture
def softde(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


# ---- files -----------------------------------------------------------------------------------------------------------


def test_respondents_from_a_file(people: Path) -> None:
    template = "You are {gender} with {school} schooling."
    gender, school = {"a woman": 0.5, "a man": 0.5}, {"little": 0.25, "much": 0.75}
    assert Design.from_toml(people) == Design(50, attributes={"gender": gender, "school": school}, template=template)
    kenya = Design.from_toml(people, "Kenya", 30, 2, "expected")
    assert kenya == Design(30, 2, "expected", {"gender": gender, "school": {"little": 1}}, template)
    assert set(kenya.people["school"]) == {"little"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "little = 0.25",
            "little = 0.35",
            "people.toml: attributes: attribute 'school': the shares of little, much sum to 1.1",
        ),
        ("{school}", "{age}", "people.toml: template: unknown attribute 'age'"),
        (
            "[attributes.school]",
            "[attribute.school]",
            "people.toml: respondents: unknown key 'attribute'; did you mean",
        ),
        ("template =", "sentence =", "people.toml: respondents: unknown key 'sentence'"),
        ("[attributes.gender]", "[attributes.gender", "people.toml: invalid TOML"),
        (
            "little = 1\n",
            "little = '1'",
            "people.toml: KEN: attribute 'school', 'little': expected a share from 0 to 1",
        ),
        (
            "[regions.KEN.school]\nlittle = 1",
            "[regions]\nKEN = 1",
            "people.toml: .regions.KEN.: expected a table, got 1",
        ),
    ],
)
def test_wrong_files_are_refused(people: Path, old: str, new: str, message: str) -> None:
    people.write_text(PEOPLE.replace(old, new))
    with pytest.raises(ValueError, match=message):
        Design.from_toml(people, "KEN")


def test_other_regions_and_files_are_refused(people: Path) -> None:
    with pytest.raises(ValueError, match=r"people.toml: no \[regions.…\] for region 'Brazil'; known: KEN"):
        Design.from_toml(people, "Brazil")
    with pytest.raises(ValueError, match="none.toml: cannot read it .No such file"):
        Design.from_toml(people.with_name("none.toml"))


# ---- softde administer -----------------------------------------------------------------------------------------------


def test_administer_prints_a_table_and_writes_answers(
    softde: Call, llama_folder: Path, llama: LM, mini: Survey, mini_file: Path, people: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    from softde.surveys.human import load_human

    code, out, err = softde(
        "administer", mini_file, "--model", llama_folder, "--respondents", 20, "--seed", 3, "--people", people,
        "--region", "KEN", "--out", "answers.csv",
    )  # fmt: skip
    assert code == 0 and "answers are in answers.csv" in err
    got = administer(mini, llama, design=Design.from_toml(people, "KEN", 20, 3))
    assert f"20 respondents, {got.forward_tokens:,} tokens" in " ".join(out.split())
    for name, numbers in (
        ("BOS", (got.scores()[0], got.standard_errors()[0])),
        ("nerves", (got.item_means[2], got.item_errors[2], got.spread[2], got.option_mass[2])),
    ):
        line = next(line for line in out.splitlines() if line.startswith(name))
        assert re.findall(r"-?\d+\.\d\d", line) == [f"{number:.2f}" for number in numbers]
    human = load_human(tmp_path / "answers.csv", load_survey(mini_file))
    assert human.regions == ("KEN",) and human.respondents is not None and got.answers is not None
    assert (human.respondents.answers == got.answers).all()
    assert human.item_means[0] == pytest.approx(got.item_means)


def test_few_respondents_are_warned_of(softde: Call, llama_folder: Path, mini_file: Path) -> None:
    code, _, err = softde("administer", mini_file, "--model", llama_folder, "--respondents", 5)
    assert code == 0 and "softde: warning: respondents: 5 are fewer than 20" in " ".join(err.split())


def test_administer_without_respondents_prints_expected_values(
    softde: Call, llama_folder: Path, llama: LM, mini: Survey, mini_file: Path
) -> None:
    code, out, _ = softde("administer", mini_file, "--model", llama_folder, "--system", "You are from Kenya.")
    assert code == 0 and "system text: expected values" in out and "error" not in out
    from softde.condition import Condition

    got = administer(mini, llama, Condition("You are from Kenya."))
    line = next(line for line in out.splitlines() if line.startswith("CAL"))
    assert line.split() == ["CAL", f"{got.scores()[1]:.2f}"]


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "answers.csv"), "--out: only drawn answers of respondents are written; add --respondents 50"),
        (("--out", "a.csv", "--respondents", 50, "--answers", "expected"), "--out: only drawn answers"),
        (("--out", "none/a.csv", "--respondents", 50), "--out: the folder none does not exist; make it first"),
        (("--people", "people.toml"), "--people: describes respondents; add --respondents 50"),
        (("--people", "other.toml", "--respondents", 50), "other.toml: cannot read it"),
        (("--region", "Kenya"), "--region: names a region in --people and in --out; to ask the model as"),
        (("--respondents", -3), "respondents: expected a whole number of at least 0, got -3"),
    ],
)
def test_bad_input_is_one_sentence_before_a_model_is_loaded(
    softde: Call, words: tuple[object, ...], message: str
) -> None:
    code, out, err = softde("administer", "vsm13", *words)
    assert code == 2 and not out and message in " ".join(err.split()) and "loading" not in err


def test_a_survey_without_texts_cannot_be_asked(softde: Call, llama: LM) -> None:
    code, _, err = softde("administer", "pvq40")
    assert code == 2 and "survey 'pvq40' comes without the texts of 40 items" in " ".join(err.split())
    with pytest.raises(ValueError, match="comes without the texts"):
        administer(load_survey("pvq40"), llama)
