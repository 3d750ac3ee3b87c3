"""The report's small parts: cells, the paper's rows, what of two arms is compared."""

import csv
import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from TeachFormerCore.evaluation.detection import UNKNOWN
from TeachFormerCore.evaluation.lesions import LesionCounts
from TeachFormerCore.evaluation.report import kept_out, paper
from TeachFormerCore.evaluation.report.arm_results import ArmResults, VolumeResult, shared_values
from TeachFormerCore.evaluation.report.arms import Arm, NetworkFacts, student_alone
from TeachFormerCore.evaluation.report.comparisons import (
    OF_THE_CACHE,
    U_NET,
    best_teacher,
    declared_comparisons,
)
from TeachFormerCore.evaluation.report.context import Context, gain
from TeachFormerCore.evaluation.report.document import _sentence
from TeachFormerCore.evaluation.report.paper import paper_row, paper_source
from TeachFormerCore.evaluation.report.study import Run, Unfinished
from TeachFormerCore.evaluation.report.table import Column, Table
from TeachFormerCore.evaluation.scores import Score
from TeachFormerCore.training.config import DistillationConfig, LossConfig

PATIENTS = [f"P{number}" for number in range(8)]
HELPED = {name: 0.6 + 0.01 * number for number, name in enumerate(PATIENTS)}
ALONE = {name: 0.05 + 0.02 * number for number, name in enumerate(PATIENTS)}
EVERYONE = ["h_denseformer", "unetr", "swin_unetr"]


def scored(*seeds: Mapping[str, float | None]) -> ArmResults:
    """An arm on patients of one label, from their Dice for each seed; None is rightly empty, 0 a false alarm."""
    rows = [
        VolumeResult(
            arm="an arm",
            fold=0,
            seed=seed,
            volume=patient,
            patient=patient,
            scores=(score_of(patient, dice),),
            slice_dice=0.0,
            empty_slices=0,
            slices=1,
            reliability=None,
            brier=None,
            detected=UNKNOWN,
        )
        for seed, values in enumerate(seeds)
        for patient, dice in values.items()
    ]
    return ArmResults(name="an arm", results=tuple(rows))


def score_of(case: str, dice: float | None) -> Score:
    return Score(
        case=case,
        label="GTV",
        dice=dice,
        iou=dice,
        hd95_mm=4.0 if dice else None,
        surface_dice=dice,
        volume_error_ml=0.0,
        missed=False,
        seen=False,
        diagonal_mm=100.0,
        lesions=LesionCounts(),
        hd_mm=None,
        accuracy=1.0,
    )


def arm(name: str, results: ArmResults, *, network: str = "h_denseformer_light", **config: Any) -> Arm:
    """With a configuration as far as an arm is told by it."""
    taught = bool(config.get("teachers"))
    settings = {"network_arguments": {}, "distillation": {"mode": "balanced"} | asdict_of_terms()} | config
    settings["teachers"] = [{"run": f"cv/{teacher}_fold0_seed0"} for teacher in config.get("teachers", ())]
    role = "teacher" if network in EVERYONE else "student"
    run = Run(arm=name, folder=Path(name), manifest={"config": settings, "network": {"name": network}})
    return Arm(
        name=name,
        kind="distilled" if taught else role,  # type: ignore[arg-type]
        results=results,
        example=run,
        runs=(),
        facts=NetworkFacts(role=role, parameters=1, flops=1),
        teachers=tuple(config.get("teachers", ())),
    )


def asdict_of_terms() -> dict[str, float]:
    return {"similarity_coarse": 1.0, "similarity_fine": 1.0, "divergence": 1.0}


def context_of(arms: Sequence[Arm]) -> Context:
    nothing: Any = None
    return Context(study=nothing, cohort=nothing, arms=arms, source=paper_source("HECKTOR21", 3))


def test_a_false_alarm_of_either_arm_counts_against_the_other_that_is_rightly_empty() -> None:
    ours = scored({"P": 0.8, "first": None, "second": 0.0, "none": None, "unscored": 0.5})
    theirs = scored({"P": 0.7, "first": 0.0, "second": None, "none": None})
    assert shared_values([ours, theirs], "dice") == [
        {"P": 0.8, "first": 1.0, "second": 0.0},
        {"P": 0.7, "first": 0.0, "second": 1.0},
    ]
    assert shared_values([ours, theirs], "hd95_mm") == [{"P": 4.0}, {"P": 4.0}]
    # One rule wherever two arms are compared.
    alone, taught = arm("student", theirs), arm("taught", ours, teachers=["h_denseformer"])
    expected = pytest.approx((0.1 + 1 - 1) / 3)
    (one,) = declared_comparisons([alone, taught])
    assert (one.result.mean, one.patients) == (expected, ("P", "first", "second"))
    assert gain(taught, context_of([alone, taught])) == expected
    tested = [
        kept_out.Tested(arm=one, fold=0, val_dice=0.5, best=one.results, every=one.results) for one in (alone, taught)
    ]
    assert kept_out._gains(tested)["taught"].result.mean == expected


def test_a_seed_that_is_rightly_empty_counts_1_beside_one_that_is_not() -> None:
    seeds = scored({"E": 0.0, "none": None}, {"E": None, "none": None}, {"E": None, "none": None})
    assert seeds.values("dice") == {"E": pytest.approx(2 / 3)}
    assert seeds.values("hd95_mm") == {}
    assert seeds.only(seed=1).values("dice") == {}


def test_counts_are_of_one_seed_and_errors_of_both_signs_do_not_cancel() -> None:
    first = scored({"A": 0.0, "B": 0.0, "E": None})
    rows = [
        replace(one, seed=seed, scores=tuple(replace(s, missed=seed == 0, volume_error_ml=error) for s in one.scores))
        for seed, error in ((0, 6.0), (1, -2.0))
        for one in first.results
    ]
    both = ArmResults(name="an arm", results=tuple(rows))
    assert (first.missed, both.missed, both.only(seed=0).missed, both.empty) == (0, 1.5, 3, 1)
    assert (both.mean("volume_error_ml"), both.absolute_volume_error_ml) == (2, 4)


@pytest.mark.parametrize(("others", "shown"), [(5, True), (6, False)])
def test_a_family_that_cannot_reject_is_told(others: int, shown: bool) -> None:
    """2 / 2^8 times the number of tests: 6 are below 5 %, 7 are not, however large the difference."""
    arms = [arm("student", scored(ALONE)), arm("taught", scored(HELPED), teachers=["h_denseformer"])]
    arms += [arm(f"other {i}", scored(ALONE | {"P0": 0.04}), teachers=["h_denseformer"]) for i in range(others)]
    (helped, *_) = [one for one in declared_comparisons(arms) if one.first.name == "taught"]
    assert (helped.result.p_permutation, helped.tests) == (2 / 2**8, others + 1)
    assert helped.can_be_shown == shown
    told = "better" if shown else "a difference cannot be shown with 8 patients and 7 tests"
    assert helped.verdict == told
    assert _sentence(helped).endswith(f": {told}.")


def test_a_comparison_of_which_few_patients_differ_cannot_be_shown() -> None:
    arms = [arm("student", scored(ALONE)), arm("taught", scored(ALONE | {"P0": 0.9}), teachers=["h_denseformer"])]
    (one,) = declared_comparisons(arms)
    assert one.verdict == "a difference cannot be shown with 8 patients, of whom 1 differ, and 1 test"


def test_what_is_rejected_could_be_shown() -> None:
    """A test of few patients beside one of many, which Holm rejects first: its own factor is then 1."""
    many = {f"M{number}": 0.5 for number in range(12)}
    few = {name: HELPED[name] for name in PATIENTS[:6]}
    arms = [
        arm("student", scored(dict.fromkeys(many, 0.4) | ALONE)),
        arm("many", scored(many | HELPED), teachers=["h_denseformer"]),
        arm("few", scored(few), teachers=["h_denseformer"]),
    ]
    found = {one.first.name: one for one in declared_comparisons(arms)}
    assert found["few"].result.p_permutation == found["few"].p_holm == found["few"].least_p_holm == 2 / 2**6
    assert found["few"].verdict == "better"


def test_the_best_teacher_is_one_with_results_and_interim_where_another_is_awaited() -> None:
    awaited = replace(
        arm("unetr", scored(), network="unetr"),
        missing=(Unfinished(arm="unetr", fold=0, seed=0, why="damaged", damaged=True),),
    )
    worse, better = (
        arm(name, scored(values), network=name) for name, values in (("h_denseformer", ALONE), ("swin_unetr", HELPED))
    )
    taught = arm("taught", scored(HELPED), teachers=["unetr", "h_denseformer", "swin_unetr"])
    for arms in ([awaited, worse, better, taught], [worse, better, taught]):  # the other one is awaited, or lost
        best = best_teacher(taught, arms)
        assert best is better
        (one,) = [one for one in declared_comparisons(arms) if one.question == "teacher"]
        assert (one.second.name, one.interim) == ("swin_unetr", True)
    whole = [arm("unetr", scored(ALONE), network="unetr"), worse, better, taught]
    assert not next(one for one in declared_comparisons(whole) if one.question == "teacher").interim
    # One that found nothing is a result too.
    nothing = arm("h_denseformer", scored(dict.fromkeys(PATIENTS, 0.0)), network="h_denseformer")
    assert best_teacher(taught, [nothing, taught]) is nothing
    # Teachers that share no patient have no best one, and none of them is it by its place.
    apart = [
        arm(name, scored({key: HELPED[key] for key in part}), network=name)
        for name, part in (("h_denseformer", PATIENTS[:4]), ("swin_unetr", PATIENTS[4:]))
    ]
    assert best_teacher(taught, [*apart, taught]) is None
    assert [one for one in declared_comparisons([*apart, taught]) if one.question == "teacher"] == []


CHANGES: list[dict[str, Any]] = [
    {"shuffle_teachers": True},
    {"divergence_form": "js"},
    {"direction": "teacher_student"},
    {"temperature": 4.0},
    {"drop_teacher": 0.5},
    {"foreground_balanced": True},
    {"balancing": "gradient"},
    {"teacher_weighting": "tune_dice"},
    {"calibrate": True},
    {"mode": "projected"},
    {"divergence": 0.5},
    {"similarity_fine": 0.0},
]
TERMS_ONLY: list[dict[str, Any]] = [
    {"divergence": 0.0},
    {"similarity_coarse": 0.0, "similarity_fine": 0.0},
]


def published(distillation: Mapping[str, Any]) -> list[bool]:
    """Whether the paper's figures are beside a student of all teachers: by its own terms in Table 4, and elsewhere."""
    settings = {"mode": "balanced"} | asdict_of_terms() | dict(distillation)
    teachers = [arm(name, scored(), network=name) for name in EVERYONE]
    taught = arm("taught", scored(), teachers=EVERYONE, distillation=settings)
    names = {(True, False): "L_AFS only", (False, True): "L_PWD only", (True, True): "L_AFS+L_PWD"}
    row = context_of([*teachers, taught]).paper(taught, f"Table 4 losses={names[taught.terms]}")
    return [row is not None, taught.is_as_published]


def test_the_papers_figures_are_beside_nothing_that_was_changed_on_purpose() -> None:
    """Forms of Eq. 1 and what the cache decides are no change; a term left out is a row of Table 4 alone."""
    cache = {"teacher_outputs": "cached", "cached_views": 4, "cache_gigabytes": 1.0, "quarter_turns": False}
    for same in ({}, {"mode": "paper"}, {"mode": "attention"}, cache):
        assert published(same) == [True, True], same
    for change in CHANGES:
        assert published(change) == [False, False], change
    for change in TERMS_ONLY:
        assert published(change) == [True, False], change


@pytest.mark.parametrize(
    "change",
    [
        {"loss": {"label_smoothing": 0.1}},
        {"loss": {"focal_gamma": 0.0}},
        {"augmentation": {"channel_dropout": 0.3}},
    ],
)
def test_a_changed_student_alone_is_not_the_papers(change: dict[str, Any]) -> None:
    assert arm("student", scored(), loss={"dice": 1.0}).is_as_published
    changed = arm("student", scored(), **change)
    assert not changed.is_as_published
    assert context_of([changed]).paper(changed, "Table 1") is None
    unet = arm("unet", scored(), network=U_NET, loss={"focal_gamma": 0.0})
    assert replace(unet, facts=NetworkFacts(role="baseline", parameters=1, flops=1)).is_as_published


def test_what_is_published_are_the_defaults() -> None:
    """And every setting of the losses is either compared or said not to matter."""
    distillation, loss = asdict(DistillationConfig()), asdict(LossConfig())
    assert distillation | paper.DISTILLATION == distillation
    assert distillation.keys() - paper.DISTILLATION.keys() == {"mode", *asdict_of_terms(), *OF_THE_CACHE}
    assert distillation["mode"] in paper.SIMILARITY_FORMS
    assert {f"loss.{key}": loss[key] for key in loss} | paper.LOSS == {f"loss.{key}": loss[key] for key in loss}
    assert {key for key in loss if f"loss.{key}" not in paper.LOSS} == {"self_distillation", "self_distillation_detach"}


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


def test_a_setting_that_did_not_exist_yet_is_no_difference() -> None:
    """Runs of earlier code lack the keys of later code, and have the same students alone and online arms."""
    newer = {"loss": {"label_smoothing": 0.0, "new": 1.0}, "optimiser": {"epsilon": 1e-8}}
    student = arm("student", scored(ALONE), **newer)
    smoothed = arm("label_smoothing", scored(ALONE), loss={"label_smoothing": 0.1})
    older = {"loss": {"label_smoothing": 0.0}, "teachers": ["h_denseformer"]}
    online, cached = (
        arm(name, scored(HELPED), distillation={"teacher_outputs": name} | more, **older | settings)
        for name, more, settings in (("online", {}, {}), ("cached", {"new": 0.0}, newer))
    )
    arms = [smoothed, student, online, cached]
    assert [student_alone(one, arms) for one in (online, cached)] == [student, student]
    caching = [one for one in declared_comparisons(arms) if one.question == "caching"]
    assert [(one.first, one.second) for one in caching] == [(cached, online)]
    built = arm("built", scored(ALONE), network_arguments={"filters": 8}, **newer)
    assert student_alone(cached, [built, student, cached]) is student


def test_the_page_says_of_each_figure_on_which_grid_it_is_and_of_no_case_that_it_chose() -> None:
    file = Path(__file__).parents[2] / "Training" / "results.py"
    spec = importlib.util.spec_from_file_location("results_page", file)
    assert spec is not None
    assert spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    model = page.section(page.RESULTS / "sts_ct_pet")
    assert "label files' grid" not in page.HEADER
    assert "On the label files' grid: Dice" in model
    assert "choices within the training, which need not make any.\n" in model
    assert page._choices({"teachers": [{"tune": {"dice": 0.5}}]}).endswith(", and weighed its teachers")
