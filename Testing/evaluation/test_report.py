"""``teachformer report``: from run folders of known quality to tables, statistics, figures and one page."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from studies import ARMS, FOLDS, PATIENTS, cohort_of, rows_of, write_prepared, write_study

from TeachFormerCore.commands import main
from TeachFormerCore.data.prepared import open_prepared
from TeachFormerCore.errors import InputError, MissingDependencyError
from TeachFormerCore.evaluation.overlap import dice
from TeachFormerCore.evaluation.report import document
from TeachFormerCore.evaluation.report.arms import NetworkFacts, awaited_arms, read_arms
from TeachFormerCore.evaluation.report.cases import Cohort
from TeachFormerCore.evaluation.report.comparisons import best_teacher, declared_comparisons
from TeachFormerCore.evaluation.report.context import FALSE_ALARMS_NOTE, FEW_PATIENTS, interval_note
from TeachFormerCore.evaluation.report.results import score_study
from TeachFormerCore.evaluation.report.study import read_study


@pytest.fixture(scope="module")
def written(study_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole report, once, as a user makes it."""
    folder = tmp_path_factory.mktemp("report") / "out"
    audit = {
        "state": "random weights",
        "step": 0,
        "batches": 1,
        "batch_size": 2,
        "rows": [{"term": "dice", "loss": 0.5}],
    }
    (study_folder / "all_minus_eq1_fold0_seed0" / "audit.json").write_text(json.dumps(audit), encoding="utf-8")
    assert main(["report", str(study_folder), "--output", str(folder)]) == 0
    return folder


def facts(run) -> NetworkFacts:
    name = run.manifest["network"]["name"]
    role = {"h_denseformer": "teacher", "unetr": "teacher", "unet": "baseline"}.get(name, "student")
    return NetworkFacts(role=role, parameters=1_000_000, flops=2_000_000_000)


def arms_of(folder: Path, prepared: Path) -> dict:
    study = read_study([folder])
    return {arm.name: arm for arm in read_arms(study, score_study(study, cohort_of(prepared))[0], facts)}


def test_every_file_is_there(written):
    names = {file.name for file in written.iterdir()}
    assert names == {"report.html", "report.md", "report.json", "scores.json", "per_case.csv", "tables", "figures"}
    assert {file.stem for file in (written / "figures").iterdir()} == {
        *("bubbles", "differences", "learning_curves", "loss_terms", "panels")
    }
    assert {file.stem for file in (written / "tables").iterdir()} == {
        *("runs", "unfinished", "table1_size_and_accuracy", "table2_cross_validation", "table3_number_of_teachers"),
        *("table4_loss_terms", "statistics", "detection_and_calibration", "loss_audit_all_minus_eq1_fold0_seed0"),
    }


def test_dice_is_the_mean_of_the_stored_masks(written, study_folder, prepared):
    data = open_prepared(prepared)
    values = []
    for fold, patients in enumerate(FOLDS):
        for patient in patients:
            stored = load_file(study_folder / f"student_fold{fold}_seed0" / "predictions" / f"{patient}.safetensors")
            values.append(dice(stored["label"] == 1, data.load(patient)[1] == 1))
    values = [value for value in values if value is not None]
    row = rows_of(written, "table1_size_and_accuracy")["student"]
    assert float(row["dice"]) == pytest.approx(np.mean(values))
    low, high = float(row["dice_interval_95_low"]), float(row["dice_interval_95_high"])
    assert low < float(row["dice"]) < high


def test_the_page_needs_no_network(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "http" not in page
    assert "url(" not in page


def test_every_table_has_the_row_that_predicts_nothing_and_counts_empty_labels(written):
    text = (written / "report.md").read_text(encoding="utf-8")
    for title in ("Table 1", "Table 2", "Table 3", "Table 4", "Statistics", "Detection"):
        section = text.split(f"## {title}")[1].split("\n## ")[0]
        assert re.search("predict(ing)? nothing", section, re.IGNORECASE), title
        assert "1 of 8 reference labels are empty" in section, title
    nothing = rows_of(written, "table1_size_and_accuracy")["predict nothing"]
    assert [float(nothing[key]) for key in ("dice", "missed", "empty")] == [0, 7, 1]


def test_notes_tell_what_matters_here(written):
    """One patient is empty, and eight are few."""
    tables = (written / "report.md").read_text(encoding="utf-8").split("## Statistics")[1].split("\n## ")[0]
    assert FALSE_ALARMS_NOTE in tables
    assert "With few patients, as here, they are too narrow" in tables
    assert interval_note([FEW_PATIENTS]) == "Intervals: BCa bootstrap over patients."


def test_unfinished_runs_are_listed(written):
    with (written / "tables" / "unfinished.csv").open(newline="", encoding="utf-8") as stream:
        listed = {(row["arm"], row["fold"]): row["why"] for row in csv.DictReader(stream)}
    assert set(listed) == {("unet", "1"), ("student from all paper", "0")}
    assert set(listed.values()) == {"running or stopped at step 80"}
    assert "Interim: 2 runs are not finished" in (written / "report.md").read_text(encoding="utf-8")
    assert rows_of(written, "runs")["unet"]["finished"] == "1 of 2"
    # The means of arms with other patients cannot be compared: one column is over those that all have.
    assert rows_of(written, "table1_size_and_accuracy")["unet"]["patients"] == "4"


def test_folds_and_their_spread(written):
    row = rows_of(written, "table2_cross_validation")["h denseformer"]
    folds = [float(row["fold_0"]), float(row["fold_1"])]
    assert float(row["dice_mean"]) == pytest.approx(np.mean(folds))
    assert float(row["dice_sd"]) == pytest.approx(np.std(folds, ddof=1))
    assert rows_of(written, "table2_cross_validation")["unet"]["dice_sd"] == ""


def test_the_papers_figures_stand_beside_ours(written):
    rows = rows_of(written, "table1_size_and_accuracy")
    assert float(rows["h denseformer"]["paper_dice"]) == pytest.approx(0.7588)
    assert float(rows["h denseformer"]["paper_parameters"]) == 11.38
    assert rows["all minus eq1"]["paper_dice"] == ""  # the paper has it with three teachers only
    assert float(rows["student from h denseformer"]["paper_dice"]) == pytest.approx(0.7588)
    assert "another dataset" in (written / "report.md").read_text(encoding="utf-8")
    # Table 3 holds what has all terms.
    assert "all minus eq1" not in rows_of(written, "table3_number_of_teachers")
    assert rows_of(written, "table4_loss_terms")["all minus eq1"]["similarity_coarse"] == "0.0"


def test_sizes_are_counted(written):
    rows = rows_of(written, "table1_size_and_accuracy")
    student, teacher = rows["student"], rows["h denseformer"]
    assert student["parameters"] == rows["student from h denseformer"]["parameters"]
    assert int(student["flops"]) == 2 * int(student["macs"]) > 0
    assert int(teacher["parameters"]) == int(student["parameters"])  # both tiny here


def test_the_json_holds_the_same(written):
    summary = json.loads((written / "report.json").read_text(encoding="utf-8"))
    row = next(row for row in summary["tables"]["table1_size_and_accuracy"] if row["arm"] == "student")
    assert f"{row['dice']:.3f}" in (written / "report.md").read_text(encoding="utf-8")


def test_the_report_goes_into_another_document(written):
    text = document.report_markdown(written, link="results/cv", level=3)
    assert text.startswith("### TeachFormer: cv")
    assert "](results/cv/figures/bubbles.png)" in text
    assert "](results/cv/tables/runs.csv)" in text
    assert "\n## " not in text


def test_the_declared_family(study_folder, prepared):
    arms = list(arms_of(study_folder, prepared).values())
    comparisons = declared_comparisons(arms)
    pairs = {(one.question, one.first.name, one.second.name) for one in comparisons}
    distilled = ["student_from_h_denseformer", "student_from_all_paper", "all_minus_eq1"]
    assert pairs == {
        *(("distillation", name, "student") for name in distilled),
        *(("teacher", name, "h_denseformer") for name in distilled),
        *(("floor", name, "unet") for name in ["student", "student_from_h_denseformer", "all_minus_eq1"]),
    }
    helped = next(one for one in comparisons if one.first.name == "student_from_h_denseformer")
    assert (helped.result.pairs, helped.interim) == (8, False)  # P7 is a false alarm of both
    assert helped.result.mean > 0.05
    assert helped.result.p_permutation == 2 / 2**7  # of the 7 that differ
    assert helped.p_holm >= helped.result.p_permutation
    assert next(one for one in comparisons if one.second.name == "unet").interim
    worse = next(one for one in comparisons if one.question == "teacher" and one.first.name == "all_minus_eq1")
    assert worse.verdict == "not shown"


def test_an_arm_on_fewer_folds_is_an_ablation(prepared, tmp_path):
    names = ("h_denseformer", "student", "student_from_h_denseformer", "all_minus_eq1")
    folder = write_study(tmp_path / "cv", prepared, FOLDS, arms={name: ARMS[name] for name in names}, ensemble=False)
    content = json.loads((folder / "crossval.json").read_text(encoding="utf-8"))
    content["jobs"] = [job for job in content["jobs"] if (job["arm"], job["fold"]) != ("all_minus_eq1", 1)]
    (folder / "crossval.json").write_text(json.dumps(content), encoding="utf-8")
    found = {(one.question, one.first.name): one for one in declared_comparisons([*arms_of(folder, prepared).values()])}
    assert set(found) == {
        *(("distillation", "student_from_h_denseformer"), ("teacher", "student_from_h_denseformer")),
        ("ablation", "all_minus_eq1"),
    }
    assert found["distillation", "student_from_h_denseformer"].p_holm == 2 / 2**7  # alone in its family


def test_planned_tests_without_a_result_count_in_their_family(prepared, tmp_path):
    """Holm's factor of the smallest p is the number of tests that the whole family will have."""
    names = ("h_denseformer", "student", "student_from_h_denseformer", "all_minus_eq1", "student_from_all_paper")
    waiting = [("all_minus_eq1", fold, 0) for fold in (0, 1)] + [("student_from_all_paper", 1, 0)]
    folder = write_study(
        tmp_path / "cv", prepared, FOLDS, arms={name: ARMS[name] for name in names}, missing=waiting, ensemble=False
    )
    study = read_study([folder])
    results = score_study(study, cohort_of(prepared))[0]
    arms, awaited = read_arms(study, results, facts), awaited_arms(study, results, facts)
    (one,) = awaited
    assert (one.name, one.kind, one.teachers) == ("all_minus_eq1", "distilled", ("h_denseformer", "unetr"))
    for awaiting, tests in ((awaited, 3), ([], 2)):
        family = [one for one in declared_comparisons(arms, awaiting) if one.question == "distillation"]
        assert [one.first.name for one in family] == ["student_from_h_denseformer", "student_from_all_paper"]
        smallest = min(family, key=lambda one: one.result.p_permutation)
        assert smallest.p_holm == tests * smallest.result.p_permutation
    output = tmp_path / "out"
    assert main(["report", str(folder), "--output", str(output)]) == 0
    with (output / "tables" / "statistics.csv").open(newline="", encoding="utf-8") as stream:
        row = next(row for row in csv.DictReader(stream) if row["first"] == "student from h denseformer")
    assert float(row["p_holm"]) == pytest.approx(3 * float(row["p_permutation"]))


def test_the_cost_of_a_step_is_that_which_fixed_the_steps_of_equal_time(prepared, tmp_path):
    distillation = {"distillation": {"teacher_outputs": "cached"}}
    taught, noise = ARMS["student_from_h_denseformer"]
    arms = {name: ARMS[name] for name in ("h_denseformer", "student")}
    arms |= {"taught": (taught | distillation, noise), "equal": ({"seconds_of": "taught", "max_steps": 230}, 0.9)}
    folder = write_study(tmp_path / "cv", prepared, FOLDS[:1], arms=arms, ensemble=False)
    assert main(["report", str(folder), "--output", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "A step of taught (teacher outputs cached) costs 1.15 times a step of equal" in text  # 230 of 200
    # As many steps as no other student has are a change, and the paper's student is not beside it.
    rows = rows_of(tmp_path / "out", "table1_size_and_accuracy")
    assert (bool(rows["student"]["paper_dice"]), bool(rows["equal"]["paper_dice"])) == (True, False)


def test_caching_is_tested_against_the_same_online(prepared, tmp_path):
    """Whatever the cache alone decides may differ, and nothing else."""
    from_t1 = {"teachers": ["h_denseformer"]}
    settings = {
        "online": {"mode": "balanced", "teacher_outputs": "online"},
        "cached": {"mode": "balanced", "teacher_outputs": "cached", "quarter_turns": True},
        "cached_unturned": {"mode": "balanced", "teacher_outputs": "cached", "quarter_turns": False},
        "cached_paper": {"mode": "paper", "teacher_outputs": "cached", "quarter_turns": True},
    }
    arms = {name: (from_t1 | {"distillation": each}, 0.5) for name, each in settings.items()}
    arms = {name: ARMS[name] for name in ("h_denseformer", "student")} | arms
    folder = write_study(tmp_path / "cv", prepared, FOLDS[:1], arms=arms, ensemble=False)
    comparisons = declared_comparisons([*arms_of(folder, prepared).values()])
    assert {(one.first.name, one.second.name) for one in comparisons if one.question == "caching"} == {
        ("cached", "online"),
        ("cached_unturned", "online"),
    }


def test_a_difference_that_is_partly_of_precision_is_told(prepared, tmp_path):
    names = ("h_denseformer", "student", "student_from_h_denseformer")
    folder = write_study(tmp_path / "cv", prepared, FOLDS, arms={name: ARMS[name] for name in names}, ensemble=False)
    manifest = folder / "student_fold1_seed0" / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps(content | {"precision": "bf16"}), encoding="utf-8")
    assert main(["report", str(folder), "--output", str(tmp_path / "out")]) == 0
    findings = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["findings"]
    ((helped,), (as_good,)) = findings.values()
    assert helped.endswith("(trained in different precisions: fold 1).")
    assert ("(95 % interval" in helped, "(90 % interval" in as_good) == (True, True)
    assert "precision" not in as_good  # both of them in fp32


def test_seeds_are_repeats_and_not_patients(prepared, tmp_path):
    arms = {name: ARMS[name] for name in ("h_denseformer", "unetr", "student")}
    folder = write_study(tmp_path / "cv", prepared, FOLDS[:1], arms=arms, seeds=(0, 1, 2))
    found = arms_of(folder, prepared)
    student = found["student"].results
    assert len(student.results) == 12
    assert len(student.values("dice")) == 4
    per_seed = [student.only(seed=seed).values("dice") for seed in (0, 1, 2)]
    assert student.values("dice")["P0"] == pytest.approx(np.mean([values["P0"] for values in per_seed]))
    assert student.seed_means("dice") == pytest.approx([np.mean(list(values.values())) for values in per_seed])
    assert len(found["both_teachers"].results.results) == 12


def test_an_ensemble_is_the_mean_of_the_stored_probabilities(study_folder, prepared):
    found = arms_of(study_folder, prepared)["both_teachers"].results
    runs = [
        study_folder / f"{name}_fold0_seed0" / "predictions" / "P2.safetensors" for name in ("h_denseformer", "unetr")
    ]
    mean = np.mean([load_file(file)["foreground"][0] / 255 for file in runs], axis=0)
    reference = open_prepared(prepared).load("P2")[1] == 1
    ours = next(one for one in found.results if one.volume == "P2").scores[0].dice
    assert ours == pytest.approx(dice(mean > 0.5, reference))


def test_the_best_teacher_is_by_dice_on_the_same_patients(study_folder, prepared):
    arms = arms_of(study_folder, prepared)
    assert best_teacher(arms["all_minus_eq1"], [*arms.values()]).name == "h_denseformer"
    assert best_teacher(arms["student"], [*arms.values()]) is None


def test_slices_become_volumes_of_patients(tmp_path):
    patients = PATIENTS[:4]
    data = write_prepared(tmp_path / "prepared", patients, slices=12)
    names = ("h_denseformer", "student", "student_from_h_denseformer")
    arms = {name: ARMS[name] for name in names}
    folder = write_study(tmp_path / "cv", data, [patients], arms=arms, window=(32, 32), ensemble=False)
    study, cohort = read_study([folder]), cohort_of(data)
    report = document.make_report(study, cohort, describe=facts)
    tables = {table.name: table for table in report.tables}
    row = next(row for row in tables["table1_size_and_accuracy"].rows if row["arm"] == "student")
    assert row["patients"] == 4
    slices = {row["arm"]: row for row in tables["slice_means"].rows}
    assert slices["predict nothing"]["slice_dice"] > 0.2 > slices["predict nothing"]["dice"] == 0
    assert "PI-CAI22" in tables["table1_size_and_accuracy"].notes[-1]


def test_a_run_by_itself_and_by_name(study_folder, written, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TEACHFORMER_RUNS", str(study_folder.parent))
    code = main(
        ["report", "cv/student_fold0_seed0", "--output", str(tmp_path / "out"), "--title", "One <run>", "--json"]
    )
    assert code == 0
    assert json.loads(capsys.readouterr().out)["tables"]["runs"][0]["arm"] == "student"
    assert "One &lt;run&gt;" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_missing_package_is_named(monkeypatch):
    import importlib

    real = importlib.import_module

    def without(name: str, package: str | None = None):
        if name == "matplotlib":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingDependencyError, match=r"'matplotlib' is not installed.*TeachFormer\[report\]"):
        document.check_installed()


def test_an_audit_that_is_none_is_refused(own, prepared):
    (own / "student_fold0_seed0" / "audit.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="not a loss audit"):
        document.make_report(read_study([own / "student_fold0_seed0"]), cohort_of(prepared), describe=facts)


def test_several_labels_each_have_their_score(tmp_path):
    from TeachFormerCore.evaluation.report.study import Run, Study

    label = np.zeros((4, 6, 6), np.uint8)
    label[1:3, 1:5, 1:3], label[1:3, 1:5, 3:5] = 1, 2
    predicted = label.copy()
    predicted[1:3, 1:5, 4] = 0  # half of the second label is missed
    foreground = np.stack([predicted == 1, predicted == 2]).astype(np.uint8) * 255
    (tmp_path / "predictions").mkdir()
    save_file({"label": predicted, "foreground": foreground}, tmp_path / "predictions" / "A.safetensors")
    (tmp_path / "per_case.csv").write_text("case,label,dice,loss\nA,front,1.0,0\nA,back,0.666667,0\n", encoding="utf-8")
    manifest = {"config": {"fold": 0, "seed": 0}, "patients": {"validation": ["A"]}, "teachers": []}
    run = Run(arm="one", folder=tmp_path, manifest=manifest)
    study = Study(name="s", protocols={}, runs=(run,), unfinished=(), ensembles={}, order=("one",))
    cohort = Cohort(
        dataset="halves",
        licence=None,
        patients={"A": "A"},
        labels={"front": 1, "back": 2},
        spacing=(1.0, 1.0, 2.0),
        channels=[{"name": "MR", "normalisation": {"kind": "z_score"}}],
        load=lambda case: (np.zeros((1, 4, 6, 6), np.float16), label),
    )
    results, damaged = score_study(study, cohort)
    assert damaged == []
    assert [one.dice for one in results["one"].results[0].scores] == pytest.approx([1, 2 / 3])
    assert results["one"].values("dice") == {"A": pytest.approx(5 / 6)}
    assert results["one"].calibration_error == pytest.approx(8 / 144)  # sure, and wrong, in 8 of 144 voxels
    assert results["one"].brier == pytest.approx(2 * 8 / 144)
    assert "suv_2_5" not in results
    # As BraTS has them: unions of labels, scored instead.
    whole = score_study(study, replace(cohort, regions={"whole": (1, 2), "back": (2,)}))[0]["one"].results[0].scores
    assert [(one.label, one.dice) for one in whole] == [
        ("whole", pytest.approx(48 / 56)),
        ("back", pytest.approx(2 / 3)),
    ]
    # A prior is one mask, held against each label.
    assert results["predict_nothing"].missed == 2
