"""The VSM 2013 index formulas one by one, and a brute-force respondent: slow, obvious, independent of softde.

Formulas: VSM 2013 manual, section on index calculation, as transcribed in several public codebases. `m[7]` is the mean
of item 7; the constant is added by the caller.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping


def vsm_scores(m: Mapping[int, float]) -> dict[str, float]:
    return {
        "PDI": 35 * (m[7] - m[2]) + 25 * (m[20] - m[23]),
        "IDV": 35 * (m[4] - m[1]) + 35 * (m[9] - m[6]),
        "MAS": 35 * (m[5] - m[3]) + 35 * (m[8] - m[10]),
        "UAI": 40 * (m[18] - m[15]) + 25 * (m[21] - m[24]),
        "LTO": 40 * (m[13] - m[14]) + 25 * (m[19] - m[22]),
        "IVR": 35 * (m[12] - m[11]) + 40 * (m[17] - m[16]),
    }


def mas_as_cat_prints_it(m: Mapping[int, float]) -> float:
    """Masoud et al. (arXiv 2309.12342) print 25 on the second pair."""
    return 35 * (m[5] - m[3]) + 25 * (m[8] - m[10])


PAIRS = {  # factor → the two (weight, item that raises, item that lowers) of its formula
    "PDI": ((35, 7, 2), (25, 20, 23)),
    "IDV": ((35, 4, 1), (35, 9, 6)),
    "MAS": ((35, 5, 3), (35, 8, 10)),
    "UAI": ((40, 18, 15), (25, 21, 24)),
    "LTO": ((40, 13, 14), (25, 19, 22)),
    "IVR": ((35, 12, 11), (40, 17, 16)),
}


def best_respondent(target: Mapping[str, float], constant: float) -> float:
    """Least sum of absolute errors over all 5^4 answers of each factor's four items."""
    total = 0.0
    for factor, ((w1, up1, down1), (w2, up2, down2)) in PAIRS.items():
        errors = []
        for answers in itertools.product(range(1, 6), repeat=4):
            m = dict.fromkeys(range(1, 25), 3) | dict(zip((up1, down1, up2, down2), answers, strict=True))
            assert vsm_scores(m)[factor] == w1 * (m[up1] - m[down1]) + w2 * (m[up2] - m[down2])
            errors.append(abs(vsm_scores(m)[factor] + constant - target[factor]))
        total += min(errors)
    return total
