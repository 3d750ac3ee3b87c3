"""The report's small parts: cells, the paper's rows."""

import csv
import io

import pytest

from TeachFormerCore.evaluation.report.paper import paper_row, paper_source
from TeachFormerCore.evaluation.report.table import Column, Table


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        (Column(key="a", title="A", decimals=2, scale=100), 0.12345, "12.35"),
        (Column(key="a", title="A", decimals=0), 1234, "1,234"),
        (Column(key="a", title="A", decimals=3), (0.5, 0.75), "0.500 to 0.750"),
        (Column(key="a", title="A", decimals=3), None, "-"),
        (Column(key="a", title="A"), "x", "x"),
        (Column(key="a", title="A", decimals=4, least=1e-4), 0.00003, "<0.0001"),
        (Column(key="a", title="A", decimals=4, least=1e-4), 0.0001, "0.0001"),
    ],
)
def test_cells(column, value, text):
    assert column.text(value) == text


def test_table_as_markdown_and_csv():
    columns = (Column(key="arm", title="Arm"), Column(key="gain", title="Gain", decimals=1, scale=100))
    rows = ({"arm": "a|b", "gain": (1 / 3, 0.5)}, {"arm": "none"})
    table = Table(name="t", title="T", about="", columns=columns, rows=rows)
    assert table.markdown().splitlines() == [
        "| Arm | Gain |",
        "| --- | ---: |",
        "| a\\|b | 33.3 to 50.0 |",
        "| none | - |",
    ]
    read = list(csv.DictReader(io.StringIO(table.csv())))
    assert read[0] == {"arm": "a|b", "gain_low": str(1 / 3), "gain_high": "0.5"}
    assert read[1] == {"arm": "none", "gain_low": "", "gain_high": ""}


@pytest.mark.parametrize(
    ("dataset", "dims", "paper", "known", "same"),
    [
        ("HECKTOR21", 3, "Teach-Former", "HECKTOR21", True),
        ("STS_PETCT_MR", 3, "Teach-Former", "HECKTOR21", False),
        ("PI-CAI22", 2, "Teach-Former", "PI-CAI22", True),
        ("picai22", 2, "Teach-Former", "PI-CAI22", True),
        ("LGG_2D", 2, "Teach-Former", "PI-CAI22", False),
        ("BraTS19", 3, "MISSU", "BraTS2019", True),
        ("CHAOS", 3, "MISSU", "CHAOS", True),
    ],
)
def test_where_the_papers_figures_are(dataset, dims, paper, known, same):
    source = paper_source(dataset, dims)
    assert (source.paper, source.dataset, source.same) == (paper, known, same)
    assert source.about.startswith(f"{paper} on {known}")


def test_rows_of_teach_former():
    hecktor = paper_source("STS", 3)
    alone = paper_row(hecktor, "h_denseformer_light", [], note=("Table 1",))
    assert (alone.dice, alone.iou, alone.parameters, alone.gflops) == pytest.approx((0.7245, 0.5978, 1.53, 62.73))
    two = paper_row(hecktor, "h_denseformer_light", ["unetr", "swin_unetr"], note=("Table 1", "Table 3"))
    assert two.dice == pytest.approx(0.7675)
    assert two.source == "Teach-Former, HECKTOR21, Table 3 teachers=T2+T3"
    everyone = ["h_denseformer", "unetr", "swin_unetr"]
    one_term = paper_row(hecktor, "h_denseformer_light", everyone, note=("Table 4 losses=L_PWD only",))
    assert one_term.dice == pytest.approx(0.7412)
    folds = paper_row(hecktor, "h_denseformer_light", everyone, split="cv5", note=("Table 2",))
    assert (folds.dice, folds.dice_sd) == pytest.approx((0.736, 0.012))
    assert paper_row(hecktor, "unet", []) is None
    assert paper_row(hecktor, "h_denseformer_light", ["missu"]) is None


def test_rows_of_missu_are_means_over_regions():
    brats = paper_source("BraTS19", 3)
    assert paper_row(brats, "missu", []).dice == pytest.approx((0.8998 + 0.8577 + 0.8014) / 3)
    assert paper_row(paper_source("CHAOS", 3), "missu", []).dice == pytest.approx(0.9678)
    assert paper_row(brats, "h_denseformer", []) is None
