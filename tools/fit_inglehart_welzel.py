"""Fit the frozen numbers of softde/surveys/data/iw.toml and print them: what to paste, and how well it does.

    python tools/fit_inglehart_welzel.py ../shared/data --figure docs/figures/inglehart_welzel.svg

The loadings are the published ones (Inglehart & Welzel 2005, p. 49), on the factor they load on. From the option shares
of 19 regions in the World Values Survey, wave 7 (as CultureSPA collected them) come each variable's mean and deviation
between regions; from the 18 of them on the WVS Association's map of 2022, a scale and an offset for each axis. A
principal component analysis with varimax rotation of the same 19 × 10 table is printed beside it for comparison.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from softde.surveys import find_region, known_regions, load_survey
from softde.surveys.composites import pair_joint
from softde.surveys.survey import Survey

Array = npt.NDArray[np.float64]
AXES = {"SELF": "survival_self_expression", "SECULAR": "traditional_secular"}
VARIABLES = ("Q46", "Q57", "Q45", "Q209", "Q164", "Q182", "Q184", "Q254", "Y002", "Y003")
LOADINGS = np.array(  # SELF, SECULAR; signs turned where a high code is the other pole
    [[-0.81, 0], [-0.46, 0], [0, 0.73], [-0.74, 0], [0, -0.91], [0.77, 0], [0, 0.82], [0, 0.81], [0.87, 0], [0, -0.88]]
)


def shares(survey: Survey, folder: Path) -> tuple[list[str], Array]:
    """Region codes and (regions, items, options) shares; answers beyond an item's options (Q254: 5) are left out."""
    answers = json.loads((folder / "proportions_group_by_country.json").read_text(encoding="utf-8"))
    table = np.zeros((len(answers), *survey.option_values.shape))
    for row, region in zip(table, answers.values(), strict=True):
        for cells, item in zip(row, survey.items, strict=True):
            found = np.array([region[item.id].get(option.label, 0.0) for option in item.options])
            cells[: len(found)] = found / found.sum()
    return list(answers), table


def variables(survey: Survey, table: Array) -> Array:
    """(regions, 10): item means, and the expected values of Y002 and Y003."""
    columns = {
        item: (table[:, i] * np.nan_to_num(survey.option_values[i])).sum(-1) for i, item in enumerate(survey.item_ids)
    }
    (pair,) = survey.compiled.pairs
    first, second = (table[:, survey.item_ids.index(item), :4] for item in pair.items)
    columns[pair.id] = (pair_joint(first, second) * np.nan_to_num(pair.table(4))).sum((-2, -1))
    mentioned = {item: table[:, survey.item_ids.index(item), 0] for item in ("Q8", "Q14", "Q15", "Q17")}
    columns["Y003"] = mentioned["Q15"] + mentioned["Q17"] - mentioned["Q8"] - mentioned["Q14"]
    return np.stack([columns[name] for name in VARIABLES], axis=1)


def varimax(loadings: Array) -> Array:
    """(2, 2) rotation that maximises the varimax criterion of two columns, by Kaiser's closed form."""
    x, y = loadings.T
    u, v = x**2 - y**2, 2 * x * y
    angle = np.arctan2(2 * (len(u) * u @ v - u.sum() * v.sum()), len(u) * (u @ u - v @ v) - u.sum() ** 2 + v.sum() ** 2)
    c, s = np.cos(angle / 4), np.sin(angle / 4)
    return np.array([[c, -s], [s, c]])


def draw(survey: Survey, codes: list[str], table: Array, places: dict[str, list[float]], path: Path) -> None:
    """Where `iw` puts regions by their answers, each joined by a line with its published place."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "softde"  # the same file every time
    figure, axis = pyplot.subplots(figsize=(7, 5.4))
    for code, row in zip(codes, table, strict=True):
        if code not in places:
            continue
        (x, y), (px, py) = survey.score_probabilities(row), places[code]
        axis.plot([x, px], [y, py], color="0.7", linewidth=0.8, zorder=1)
        axis.plot(px, py, "o", color="white", markeredgecolor="black", markersize=5)
        axis.plot(x, y, "o", color="tab:red", markersize=5)
        axis.annotate(code, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=8)
    axis.plot([], [], "o", color="tab:red", label="iw, from option shares of wave 7")
    axis.plot([], [], "o", color="white", markeredgecolor="black", label="published map, 2022")
    axis.set(xlabel="survival → self-expression", ylabel="traditional → secular")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds culturespa/ and inglehart-welzel/")
    parser.add_argument("--figure", type=Path, help="draw the regions' places by the shipped iw beside the map's")
    options = parser.parse_args()
    folder = options.data
    survey = load_survey("iw")
    codes, table = shares(survey, folder / "culturespa")
    x = variables(survey, table)
    means, deviations = x.mean(axis=0).round(6), x.std(axis=0, ddof=1).round(6)
    with (folder / "inglehart-welzel" / "map-2022.csv").open(encoding="utf-8") as file:
        places = {row["iso3"]: [float(row[axis]) for axis in AXES.values()] for row in csv.DictReader(file)}
    if options.figure is not None:
        draw(survey, codes, table, places, options.figure)
    both = [i for i, code in enumerate(codes) if code in places]
    published = np.array([places[codes[i]] for i in both])

    z = (x - means) / deviations
    raw = (z @ LOADINGS)[both]
    print("[projection]\nvariables =", json.dumps(VARIABLES))
    print("means =", means.tolist(), "\ndeviations =", deviations.tolist(), "\nloadings =", LOADINGS.tolist())
    for axis, column, place in zip(AXES, raw.T, published.T, strict=True):
        scale, offset = np.polyfit(column, place, 1)
        distance = np.abs(scale * column + offset - place).mean()
        without = [np.polyfit(np.delete(column, i), np.delete(place, i), 1) @ [column[i], 1] for i in range(len(place))]
        print(
            f"{axis}: scale = {scale:.6f}, offset = {offset:.6f}, r = {np.corrcoef(column, place)[0, 1]:.4f}, mean "
            f"distance {distance:.3f}, r without the region in question {np.corrcoef(without, place)[0, 1]:.4f}"
        )

    values, vectors = np.linalg.eigh(np.corrcoef(x[both].T))
    loadings = vectors[:, ::-1][:, :2] * np.sqrt(values[::-1][:2])
    own = (x[both] - x[both].mean(axis=0)) / x[both].std(axis=0, ddof=1)
    scores = own @ (loadings / values[::-1][:2]) @ varimax(loadings)
    r = np.abs(np.corrcoef(np.hstack([scores, published]).T)[:2, 2:])
    print("principal components and varimax on the regions of the map, |r| with the axes:", r.round(3).tolist())

    names = {region.iso3: region.name for region in known_regions()}
    for code, place in places.items():
        print(",".join([find_region(names.get(code, code), list(names.values())), *(f"{v:g}" for v in place)]))


if __name__ == "__main__":
    main()
