"""``softde score-answers``: what it prints for stored answers, and one sentence for bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from softde.cli import main

QUESTIONS, SHARES = "wvs_questions.json", "proportions_group_by_country.json"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command on three files: (exit code, standard output, standard error)."""

    def run(folder: Path, answers: Path, region: str, *more: str, **other: object) -> tuple[int, str, str]:
        files = {"survey": folder / QUESTIONS, "human": folder / SHARES, "answers": answers, "region": region, **other}
        with pytest.raises(SystemExit) as stop:
            main(["score-answers", *(str(w) for k, v in files.items() for w in (f"--{k}", v)), *more])
        out, err = capsys.readouterr()
        return stop.value.code, out, err  # type: ignore[return-value]

    return run


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """Two files as CultureSPA's: an item of four options and one of three that counts from 0, two regions."""
    questions = [
        {"Q_id": "Q1", "question": "Is tea good?", "option_lst": ["very", "rather", "little", "no"]},
        {"Q_id": "Q2", "question": "Do you drink it?", "option_lst": ["never", "at times", "daily"]},
        {"Q_id": "Q3", "question": "And coffee?", "option_lst": ["yes", "no"]},
    ]
    shares = {
        "IRL": {"Q1": {"1": 0.6, "2": 0.3}, "Q2": {"2": 0.7, "0": 0.3}, "Q3": {}},
        "ITA": {"Q1": {"4": 0.9, "1": 0.1}, "Q2": {"0": 0.8, "1": 0.1}, "Q3": {"1": 1.0}},
    }
    (tmp_path / QUESTIONS).write_text(json.dumps(questions))
    (tmp_path / SHARES).write_text(json.dumps(shares))
    return tmp_path


def written(folder: Path, text: str, name: str = "answers.json") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_scores_of_stored_answers(call: Call, shared_data: Path) -> None:
    folder = shared_data / "culturespa"
    if not folder.is_dir():
        pytest.skip(f"no CultureSPA data at {folder}")
    stored = folder / "llama-3-8b-instruct-answers"
    for region, score, items in (("NZL", "71.81", 254), ("Kenya", "60.60", 256)):
        code = "KEN" if region == "Kenya" else region
        answers = stored / f"wvs_result_culture_aware_{code}_0.json"
        code_, out, _ = call(folder, answers, region, "--metric", "culture-spa")
        assert code_ == 0 and out.startswith(f"culture-spa {code}: {score}\nitems scored: {items}\n")
    _, out, _ = call(folder, stored / "wvs_result_culture_aware_BRA_0.json", "BRA", "--metric", "identification")
    assert out.startswith("identification BRA: rank 12 of 19 regions\nchance: rank 10; ")
    assert "most like USA" in out and "BRA itself 62.83" in out


def test_what_was_left_out_is_said(call: Call, mini: Path) -> None:
    rows = [{"Q_id": "Q1", "answer": "I say 3"}, {"Q_id": "Q2", "answer": "no"}, {"Q_id": "Q3", "answer": "1"},
            {"Q_id": "Q9", "answer": "1"}, {"answer": "2"}]  # fmt: skip
    code, out, err = call(mini, written(mini, json.dumps(rows)), "Ireland")
    # error 3 - 1 of at most 3: 100 (1 - 2 / 3)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "culture-spa IRL: 33.33",
        "items scored: 1",
        "no valid answer, left out: 1 (Q2)",
        "no human answers in IRL, left out: 1 (Q3)",
        "not in the survey, left out: 1 (Q9)",
        "answers.json: row 5: no item; expected one under item, Q_id; left out",
    ]


def test_corrected_score_and_labels(call: Call, mini: Path) -> None:
    answers = written(mini, "item,answer\nQ1,5\nQ2,2\n", "answers.csv")
    _, out, _ = call(mini, answers, "IRL", "--metric", "culture-spa-corrected")
    # 5 is out of range: 3 away, the farthest; 2 is the majority: 100 (1 - 3 / √13)
    assert out.splitlines()[:3] == [
        "culture-spa-corrected IRL: 16.79",
        "items scored: 2",
        "no valid answer, farthest from the majority: 1 (Q1)",
    ]
    _, out, _ = call(mini, answers, "IRL", "--metric", "culture-spa-corrected", "--labels")
    assert "corrected IRL: 12.29" in out  # 100 (1 - √10 / √13): as a position, 2 is one away
    code, _, err = call(mini, answers, "IRL", "--labels")
    assert code == 2 and "--labels goes with --metric culture-spa-corrected" in err


def test_many_rows_left_out_are_counted(call: Call, mini: Path) -> None:
    code, out, _ = call(mini, written(mini, "item,answer\n" + "Q1,1\n" * 9, "twice.csv"), "IRL")
    assert code == 0 and out.endswith(
        "line 7: item 'Q1' was answered before; left out\ntwice.csv: 3 more rows left out\n"
    )


def test_files_that_are_swapped_get_a_short_sentence(call: Call, mini: Path) -> None:
    (mini / "long.json").write_text(json.dumps([{"Q_id": f"Q{n}", "option_lst": []} for n in range(300)]))
    code, _, err = call(mini, written(mini, '{"Q1": 1}'), "IRL", human=mini / "long.json")
    assert code == 2 and "shares by region: expected a table, got [{'Q_id'" in err and len(err) < 250


def test_own_survey_file(call: Call, mini: Path) -> None:
    survey = written(
        mini,
        'id = "tea"\ntitle = "Tea"\n[[items]]\nid = "Q1"\ntext = "Tea?"\noptions = ["a", "b", "c", "d"]\n',
        "tea.toml",
    )
    code, out, _ = call(mini, written(mini, '{"Q1": 4}'), "ITA", survey=survey)
    assert code == 0 and out == "culture-spa ITA: 100.00\nitems scored: 1\n"


def test_files_of_any_name_and_place(call: Call, mini: Path) -> None:
    (mini / "other").mkdir()
    (mini / QUESTIONS).rename(mini / "other" / "items.json")
    (mini / SHARES).rename(mini / "people.json")
    files = {"survey": mini / "other" / "items.json", "human": mini / "people.json"}
    code, out, _ = call(mini, written(mini, '{"Q1": 4, "Q2": 0}'), "ITA", **files)
    assert code == 0 and out == "culture-spa ITA: 100.00\nitems scored: 2\nnot answered, left out: 1 (Q3)\n"
    code, _, err = call(mini, written(mini, '{"Q1": 4}'), "ITA", **{**files, "human": mini / "none.json"})
    assert code == 2 and "none.json'; expected CultureSPA's proportions_group_by_country.json" in err


@pytest.mark.parametrize(
    ("text", "region", "more", "message"),
    [
        ('{"Q1": 1}', "Atlantis", {}, "no human answers for region 'Atlantis'; known: IRL, ITA"),
        ('{"m01": 1}', "IRL", {}, "answers of another survey: none of their items (m01)"),
        ('{"Q3": 1}', "IRL", {}, "no item has both a valid answer and a human answer"),
        ("[]", "IRL", {}, "answers.json: no row has an item and an answer"),
        ('{"Q1": 1}', "IRL", {"metric": "bleu"}, "'bleu' is not one of"),
        (
            '{"Q1": 1}',
            "IRL",
            {"survey": "none.json"},
            "cannot read 'none.json'; expected CultureSPA's wvs_questions.json",
        ),
        ('{"Q1": 1}', "IRL", {"survey": "vsm13"}, "no answers to item 'm01' of survey 'vsm13'"),
        ('{"Q1": 1}', "IRL", {"answers": "none.json"}, "cannot read 'none.json' (No such file or directory)"),
    ],
)
def test_bad_input_is_one_sentence(
    call: Call, mini: Path, text: str, region: str, more: dict[str, str], message: str
) -> None:
    answers = written(mini, text)
    code, out, err = (
        call(mini, answers, region, **more) if "answers" not in more else call(mini, Path(more["answers"]), region)
    )
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and message in err
