"""A made-up file in the layout of the World Values Survey's wave 7, for tests and benchmarks; no answer is anyone's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from softde.files import write_file

# Column names as in the CSV that the World Values Survey Association publishes (wave 7, cross-national).
ADMINISTRATION = (
    "version", "doi", "A_WAVE", "A_YEAR", "A_STUDY", "B_COUNTRY", "B_COUNTRY_ALPHA", "C_COW_NUM", "C_COW_ALPHA",
    "D_INTERVIEW", "S007", "J_INTDATE", "FW_START", "FW_END", "K_TIME_START", "K_TIME_END", "K_DURATION",
    "Q_MODE", "N_REGION_ISO", "N_REGION_WVS", "N_REGION_NUTS2", "N_REG_NUTS1", "N_TOWN", "G_TOWNSIZE",
    "G_TOWNSIZE2", "H_SETTLEMENT", "H_URBRURAL", "I_PSU", "O1_LONGITUDE", "O2_LATITUDE", "L_INTERVIEWER_NUMBER",
    "S_INTLANGUAGE", "LNGE_ISO", "E_RESPINT", "F_INTPRIVACY", "E1_LITERACY", "W_WEIGHT", "S018", "PWGHT", "S025",
)  # fmt: skip
# (last question, options, lowest code) of runs of questions with as many options
SCALES = (
    (6, 4, 1), (26, 2, 1), (32, 4, 1), (41, 5, 1), (45, 3, 1), (46, 4, 1), (47, 5, 1), (50, 10, 1), (55, 4, 1),
    (56, 3, 1), (57, 2, 1), (89, 4, 1), (90, 10, 1), (93, 3, 1), (105, 3, 0), (110, 10, 1), (111, 3, 1),
    (112, 10, 1), (118, 4, 1), (119, 5, 0), (120, 10, 1), (121, 5, 1), (129, 3, 0), (138, 4, 1), (141, 2, 1),
    (143, 4, 1), (145, 2, 1), (148, 4, 1), (151, 2, 1), (157, 4, 1), (164, 10, 1), (168, 2, 1), (170, 4, 1),
    (171, 7, 1), (172, 8, 1), (173, 3, 1), (175, 2, 1), (195, 10, 1), (199, 4, 1), (200, 3, 1), (208, 5, 1),
    (220, 3, 1), (234, 4, 1), (239, 4, 1), (240, 10, 1), (249, 11, 0), (252, 10, 1), (253, 4, 1), (254, 5, 1),
    (259, 4, 1), (260, 2, 1), (262, 80, 17), (290, 9, 1),
)  # fmt: skip
MORE = {  # columns between the questions
    "Q33": ("Q33_3",), "Q34": ("Q34_3",), "Q35": ("Q35_3",),
    "Q82": (
        "Q82_EU", "Q82_APEC", "Q82_ARABLEAGUE", "Q82_ASEAN", "Q82_AFRICANUNION", "Q82_CIS", "Q82_ECO",
        "Q82_GULFCOOP", "Q82_ISLCOOP", "Q82_MERCOSUR", "Q82_NAFTA", "Q82_OAS", "Q82_SAARC", "Q82_SCO",
        "Q82_TLC", "Q82_UNDP",
    ),
    "Q223": ("Q223_ABREV", "Q223_LOCAL"), "Q234": ("Q234A",), "Q262": ("X003R", "X003R2"), "Q275": ("Q275A", "Q275R"),
    "Q276": ("Q276A", "Q276R"), "Q277": ("Q277A", "Q277R"), "Q278": ("Q278A", "Q278R"), "Q288": ("Q288R",),
    "Q289": ("Q289CS9",),
}  # fmt: skip
DERIVED = (
    "Y001", "Y002", "Y003", "SACSECVAL", "RESEMAVAL", "I_AUTHORITY", "I_NATIONALISM", "I_DEVOUT", "DEFIANCE",
    "I_RELIGIMP", "I_RELIGBEL", "I_RELIGPRAC", "DISBELIEF", "I_NORM1", "I_NORM2", "I_NORM3", "RELATIVISM",
    "I_TRUSTARMY", "I_TRUSTPOLICE", "I_TRUSTCOURTS", "SCEPTICISM", "I_INDEP", "I_IMAGIN", "I_NONOBED", "AUTONOMY",
    "I_WOMJOB", "I_WOMPOL", "I_WOMEDU", "EQUALITY", "I_HOMOLIB", "I_ABORTLIB", "I_DIVORLIB", "CHOICE", "I_VOICE1",
    "I_VOICE2", "I_VOI2_00", "VOICE", "SECVALWGT", "RESEMAVALWGT", "fhregion", "polregfh", "freestfh", "prfhrat",
    "prfhscore", "clfhrat", "clfhscore", "democ", "autoc", "polity", "durable", "regtype", "ruleoflaw",
    "corrupttransp", "electintegr", "btiregion", "btistatus", "btidemstatus", "btistate", "btipolpart",
    "btiruleoflaw", "btistability", "btiintegration", "btimarket", "btigovindex", "btigoveperform", "btiregime",
    "regionWB", "incomeWB", "landWB", "GDPpercap1", "GDPpercap2", "giniWB", "incrichest10p", "popWB1990",
    "popWB2000", "popWB2019", "lifeexpect", "popgrowth", "urbanpop", "laborforce", "deathrate", "unemployfem",
    "unemploymale", "unemploytotal", "accessclfuel", "accesselectr", "renewelectr", "co2emis", "co2percap",
)  # fmt: skip
REGIONS = (
    "AND", "ARG", "AUS", "BRA", "CHN", "DEU", "EGY", "ETH", "GBR", "IND", "JPN", "KEN", "MEX", "NGA", "RUS", "USA",
)  # fmt: skip
NONE = (-1, -2, -4, -5)  # don't know, no answer, not asked, missing
BLOCK = 2_000  # rows that are made at once


def wvs_columns(columns: int) -> tuple[str, ...]:
    """The first column names of the layout; past its end, country-level columns X0001, X0002, … ."""
    questions = [name for q in range(1, 291) for name in (f"Q{q}", *MORE.get(f"Q{q}", ()))]
    names = [*ADMINISTRATION, *questions, *DERIVED]
    return tuple([*names, *(f"X{n:04d}" for n in range(1, columns - len(names) + 1))][:columns])


def wvs_scale(column: str) -> tuple[int, int]:
    """Options and lowest code of an item's column; 10 and 1 for all that is no question."""
    number = re.match(r"Q(\d+)", column)
    return next((n, lowest) for last, n, lowest in SCALES if int(number[1]) <= last) if number else (10, 1)


def fake_wvs(
    path: str | os.PathLike[str],
    rows: int,
    columns: int = 600,
    regions: Sequence[str] = REGIONS,
    seed: int = 0,
    separator: str = ",",
) -> None:
    """Write a CSV with the columns of the World Values Survey's wave 7 and random answers.

    Every region has answer shares of its own; one answer in twelve is a code below zero. Weights are between 0.2 and 3.
    `columns` counts from the left of the layout: 40 of administration, then questions. A seed gives one file.
    """
    if rows < len(regions) or columns <= len(ADMINISTRATION) or not regions:
        raise ValueError(
            f"expected a row or more for each of one region or more, and over {len(ADMINISTRATION)} columns, got "
            f"{rows} rows, {len(regions)} regions, {columns} columns"
        )
    random = np.random.default_rng(seed)
    names = wvs_columns(columns)
    blocks = _blocks(random, rows, names, [str(region) for region in regions], separator)
    write_file(os.fspath(path), b"".join([separator.join(names).encode() + b"\n", *blocks]))


def _blocks(
    random: np.random.Generator, rows: int, names: Sequence[str], regions: Sequence[str], separator: str
) -> Iterator[bytes]:
    items = names[len(ADMINISTRATION) :]
    scales = np.array([wvs_scale(name) for name in items])
    tilt = random.normal(0.0, 0.35, (len(regions), len(items)))  # the regions' leaning to an item's last options
    cells = np.array([f"{separator}{code}".encode() for code in range(min(NONE), 120)], dtype=object)
    of = np.sort(np.arange(rows) % len(regions))  # a region's respondents stand together
    for start in range(0, rows, BLOCK):
        region = of[start : start + BLOCK]
        place = random.random((len(region), len(items))) ** np.exp(tilt[region])
        codes = scales[:, 1] + (place * scales[:, 0]).astype(np.int64)
        none = random.random(codes.shape) < 1 / 12
        codes[none] = random.choice(NONE, int(none.sum()))
        weights = random.uniform(0.2, 3.0, (len(region), 3))
        people = [_person(start + n, r, regions[r], weights[n], separator) for n, r in enumerate(region.tolist())]
        text = cells[codes - min(NONE)]
        yield b"".join(b"".join([person, *row, b"\n"]) for person, row in zip(people, text.tolist(), strict=True))


def _person(number: int, region: int, alpha: str, weights: npt.NDArray[np.float64], separator: str) -> bytes:
    """The columns of administration."""
    known = {
        "version": "6-0-0 (made up)", "doi": "none", "A_WAVE": "7", "A_YEAR": "2018", "A_STUDY": "2",
        "B_COUNTRY": str(region + 1), "B_COUNTRY_ALPHA": alpha, "C_COW_ALPHA": alpha, "D_INTERVIEW": str(number + 1),
        "W_WEIGHT": f"{weights[0]:.6f}", "S018": f"{weights[1]:.6f}", "PWGHT": f"{weights[2]:.6f}", "LNGE_ISO": "en",
        "FW_START": "201801", "FW_END": "201802", "N_REGION_ISO": f"{alpha}-1", "O1_LONGITUDE": "", "O2_LATITUDE": "",
    }  # fmt: skip
    return separator.join(known.get(name, "-4") for name in ADMINISTRATION).encode()
