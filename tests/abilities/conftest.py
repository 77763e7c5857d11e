"""Small files in the real column layouts, with questions of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

OPTIONS = ",".join(f"prompt_option_{letter}" for letter in "abcd")
EASY = f"""data_idx,question_idx,prompt_question,{OPTIONS},answer,country
0,11,Which grain is boiled for breakfast in the valley of Orn?,barley,rye,"oats, rolled",None,C,Orn
1,12,"What do guests in Orn bring, as a rule?",salt,"bread
and wine",coal,shoes,B,Orn
2,13,Who pours the tea in Lomé-on-Sea?,the eldest,the youngest,the host,nobody,a,Lomé-on-Sea
3,14,Where do people in Lomé-on-Sea leave their shoes?,outside,inside,outside ,upstairs,D,Lomé-on-Sea
4,15,What is sung at noon in Orn?,a hymn,a march,a lullaby,nothing,A,Orn
"""
HARD = """data_idx,question_idx,prompt_question,prompt_option,answer,country
0,11,Which grain is boiled for breakfast in the valley of Orn?,barley,FALSE,Orn
1,11,Which grain is boiled for breakfast in the valley of Orn?,rye,FALSE,Orn
2,11,Which grain is boiled for breakfast in the valley of Orn?,"oats, rolled",TRUE,Orn
3,11,Which grain is boiled for breakfast in the valley of Orn?,None,FALSE,Orn
4,13,Who pours the tea in Lomé-on-Sea?,the eldest,True,Lomé-on-Sea
5,13,Who pours the tea in Lomé-on-Sea?,the youngest,False,Lomé-on-Sea
6,13,Who pours the tea in Lomé-on-Sea?,the host,False,Lomé-on-Sea
7,13,Who pours the tea in Lomé-on-Sea?,nobody,False,Lomé-on-Sea
8,15,What is sung at noon in Orn?,a hymn,1,Orn
9,15,What is sung at noon in Orn?,a march,0,Orn
10,15,What is sung at noon in Orn?,a lullaby,perhaps,Orn
11,15,What is sung at noon in Orn?,nothing,0,Orn
"""


@pytest.fixture
def easy_file(tmp_path: Path) -> Path:
    """CulturalBench-Easy's columns: five questions, one of them with the same option twice."""
    path = tmp_path / "CulturalBench-Easy.csv"
    path.write_text(EASY, encoding="utf-8")
    return path


@pytest.fixture
def hard_file(tmp_path: Path) -> Path:
    """CulturalBench-Hard's columns: three questions of four judgements, one judgement of the last without an answer."""
    path = tmp_path / "CulturalBench-Hard.csv"
    path.write_text("\ufeff" + HARD, encoding="utf-8")
    return path
