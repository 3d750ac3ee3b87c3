"""Cross-validation folders as ``teachformer crossval`` leaves them, with predictions of a known quality."""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter

from TeachFormerCore.data.channels import Channel, default_normalisation
from TeachFormerCore.data.prepared import PreparationPlan, PreparedData, open_prepared, write_plan
from TeachFormerCore.evaluation.overlap import dice
from TeachFormerCore.evaluation.report.cases import Cohort

# The study of `conftest`: its patients, who is kept out of which fold, and the runs that are not finished.
PATIENTS = [f"P{number}" for number in range(8)]
FOLDS = [PATIENTS[:4], PATIENTS[4:]]
MISSING = [("unet", 1, 0), ("student_from_all_paper", 0, 0)]

SMALL = {"filters": 2, "transformer_depth": 4}
# What crossval.json says of an arm, and the noise of its predictions: the more, the worse.
ARMS: dict[str, tuple[dict[str, Any], float]] = {
    "h_denseformer": ({"network": "h_denseformer"}, 0.30),
    "unetr": ({"network": "unetr"}, 0.60),
    "student": ({}, 0.70),
    "student_from_h_denseformer": ({"teachers": ["h_denseformer"], "distillation": {"mode": "balanced"}}, 0.40),
    "student_from_all_paper": ({"teachers": ["h_denseformer", "unetr"], "distillation": {"mode": "paper"}}, 0.55),
    "all_minus_eq1": (
        {
            "teachers": ["h_denseformer", "unetr"],
            "distillation": {"mode": "balanced", "similarity_coarse": 0.0, "similarity_fine": 0.0},
        },
        0.5,
    ),
    "unet": ({"network": "unet"}, 0.62),
}
DISTILLATION = {
    "mode": "paper",
    "similarity_coarse": 1.0,
    "similarity_fine": 1.0,
    "divergence": 1.0,
    "direction": "student_teacher",
    "temperature": 1.0,
    "balancing": "none",
}
NETWORK_ARGUMENTS = {
    "h_denseformer": SMALL,
    "h_denseformer_light": SMALL,
    "unetr": {"hidden_size": 48, "feed_forward_size": 96, "heads": 4},
    "unet": {"widths": [4, 4, 8, 8, 8]},
}


def write_prepared(folder: Path, patients: Sequence[str], *, empty: Sequence[str] = (), slices: int = 0) -> Path:
    """Ellipsoids of 16 x 14 x 12 voxels of 3 mm; with ``slices``, so many single slices of each patient."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    cases: dict[str, str] = {}
    for patient in patients:
        grid = np.stack(np.meshgrid(*map(np.arange, (12, 14, 16)), indexing="ij"), -1)
        centre, radius = random.uniform(5, 7, 3), random.uniform(3, 5, 3)
        label = ((((grid - centre) / radius) ** 2).sum(-1) < 1).astype(np.uint8)
        if patient in empty:
            label[:] = 0
        image = np.stack([0.4 + 0.1 * label, 1.4 * label]) + random.normal(0, 0.05, (2, *label.shape))
        parts = [(f"{patient}_{z:02d}", z) for z in range(slices)] or [(patient, None)]
        for case, z in parts:
            cut = slice(None) if z is None else slice(z, z + 1)
            arrays = {"image": np.ascontiguousarray(image[:, cut]).astype(np.float16), "label": label[cut].copy()}
            save_file(arrays, folder / f"{case}.safetensors")
            cases[case] = patient
    plan = PreparationPlan(
        dataset="ellipsoids",
        licence="CC0",
        reference=None,
        channels=tuple(
            Channel(name=name, modality=name, normalisation=default_normalisation(name)) for name in ("CT", "PET")
        ),
        labels={"background": 0, "GTV": 1},
        spacing=(3.0, 3.0, 3.0),
        patients=cases,
        sources={},
    )
    write_plan(folder, plan, dict.fromkeys(cases, (48.0, 42.0, 36.0)))
    return folder


def cohort_of(prepared: Path) -> Cohort:
    """A folder of `write_prepared` as the report takes it."""
    data = open_prepared(prepared)
    return Cohort(
        dataset=data.plan.dataset,
        licence=None,
        patients=data.plan.patients,
        labels={"GTV": 1},
        spacing=data.plan.spacing,
        channels=[channel.__dict__ for channel in data.plan.channels],
        load=data.load,
    )


def write_study(
    folder: Path,
    prepared: Path,
    folds: Sequence[Sequence[str]],
    *,
    arms: Mapping[str, tuple[dict[str, Any], float]] = ARMS,
    seeds: Sequence[int] = (0,),
    missing: Sequence[tuple[str, int, int]] = (),
    window: Sequence[int] = (32, 32, 32),
    ensemble: bool = True,
    tested: Path | None = None,
) -> Path:
    """A cross-validation over folds of kept-out patients; ``missing`` jobs (arm, fold, seed) have only begun.

    ``tested``: prepared cases that the whole cross-validation keeps out.
    """
    data = open_prepared(prepared)
    folder.mkdir(parents=True)
    jobs, configs = [], {}
    for arm, (described, noise) in arms.items():
        for fold, patients in enumerate(folds):
            for seed in seeds:
                run = folder / f"{arm}_fold{fold}_seed{seed}"
                jobs.append({"arm": arm, "fold": fold, "seed": seed, "run": f"{folder.name}/{run.name}"})
                configs.setdefault(arm, config_of(run, data, described, fold, seed, window))
                finished = (arm, fold, seed) not in missing
                write_run(run, data, described, patients, fold, seed, noise, window=window, finished=finished)
                if tested and finished:
                    add_kept_out(run, open_prepared(tested), seed, noise)
    described = {arm: dict(changes) for arm, (changes, _) in arms.items()}
    if ensemble:
        described["both_teachers"] = {"ensemble_of": ["h_denseformer", "unetr"]}
    content = {
        "name": folder.name,
        "protocol": "0123456789abcdef",
        "folds": list(range(len(folds))),
        "seeds": list(seeds),
        "base": {},
        "arms": described,
        "configs": configs,
        "jobs": jobs,
    }
    (folder / "crossval.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def write_run(
    run: Path,
    data: PreparedData,
    described: Mapping[str, Any],
    patients: Sequence[str],
    fold: int,
    seed: int,
    noise: float,
    *,
    window: Sequence[int],
    finished: bool,
) -> None:
    """One run folder; the noise of a case is the same for every arm but for its size, so that arms can be paired."""
    (run / "predictions").mkdir(parents=True)
    config = config_of(run, data, described, fold, seed, window)
    network, teachers = config["network"], [teacher["run"] for teacher in config["teachers"]]
    (run / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    _write_metrics(run, noise, bool(teachers), 10 if finished else 4)
    if not finished:
        return
    cases = [case for case, patient in sorted(data.plan.patients.items()) if patient in patients]
    write_predictions(run, data, cases, seed, noise, folder="predictions", table="per_case.csv")
    others = sorted(set(data.plan.patients.values()) - set(patients))
    manifest = {
        "versions": {"TeachFormer": "0.1.0"},
        "config": config,
        "network": {"name": network, "arguments": NETWORK_ARGUMENTS.get(network, {})},
        "data": {
            "dataset": data.plan.dataset,
            "licence": data.plan.licence,
            "reference": data.plan.reference,
            "preparation": data.plan.key(),
            "split": "0",
            "largest_field_of_view_mm": [48.0, 42.0, 36.0],
            "channels": [channel.__dict__ for channel in data.plan.channels],
            "labels": data.plan.labels,
        },
        "patients": {"training": others[1:], "tuning": others[:1], "validation": sorted(patients)},
        "teachers": [teacher_record(name) for name in teachers],
        "weights_sha256": hashlib.sha256(str(run).encode()).hexdigest(),
        "steps": 200,
        "device": "cpu",
        "precision": "fp32",
        "seconds_per_step": 0.25,
        "val_dice": 0.5,
    }
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def config_of(
    run: Path, data: PreparedData, described: Mapping[str, Any], fold: int, seed: int, window: Sequence[int]
) -> dict[str, Any]:
    """The resolved configuration of a run, as far as the report reads it."""
    network = described.get("network", "h_denseformer_light")
    teachers = [f"{run.parent.name}/{name}_fold{fold}_seed{seed}" for name in described.get("teachers", ())]
    return {
        "data": str(data.folder),
        "run": f"{run.parent.name}/{run.name}",
        "network": network,
        "channels": ["CT", "PET"],
        "patch_size": list(window),
        "image_size": None,
        "spacing": list(data.plan.spacing),
        "fold": fold,
        "seed": seed,
        "network_arguments": NETWORK_ARGUMENTS.get(network, {}),
        "kept_out": None,
        "protocol": "sound",
        "patience": None,
        "max_steps": described.get("max_steps", 200),
        "loss": {"dice": 1.0, "focal": 1.0},
        "teachers": [{"run": name, "weight": 1.0} for name in teachers],
        "distillation": DISTILLATION | described.get("distillation", {}),
    }


def teacher_record(run: str) -> dict[str, Any]:
    """What a student's manifest says of a teacher."""
    seen = {f"{role}_patients": [] for role in ("training", "tuning", "validation")}
    network = {"name": "h_denseformer", "arguments": {}}
    weights = {"weight": 1.0, "temperature": 1.0, "weights_sha256": "0"}
    return {"run": run, "network": network, "teachers": [], **weights, **seen}


def write_predictions(
    run: Path, data: PreparedData, cases: Sequence[str], seed: int, noise: float, *, folder: str, table: str
) -> None:
    """What a run stores of some cases, and their Dice."""
    (run / folder).mkdir(parents=True, exist_ok=True)
    rows = []
    for case in cases:
        label = data.load(case)[1]
        random = np.random.default_rng(int(hashlib.sha256(f"{case} {seed}".encode()).hexdigest()[:8], 16))
        field = gaussian_filter(random.normal(size=label.shape), [min(2, n / 4) for n in label.shape])
        field /= max(field.std(), 1e-9)
        own = np.random.default_rng(int(hashlib.sha256(f"{run.name} {case}".encode()).hexdigest()[:8], 16))
        chance = 1 / (1 + np.exp(-4 * (gaussian_filter(label * 2.0 - 1, 0.7) + noise * (field + 0.2 * own.normal()))))
        foreground = np.round(255 * chance).astype(np.uint8)[None]
        predicted = (chance > 0.5).astype(np.uint8)
        save_file({"label": predicted, "foreground": foreground}, run / folder / f"{case}.safetensors")
        value = dice(predicted == 1, label == 1)
        rows.append([case, "GTV", "" if value is None else f"{value:.6f}", "0.5"])
    with (run / table).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["case", "label", "dice", "loss"], *rows])


def add_kept_out(run: Path, data: PreparedData, seed: int, noise: float) -> None:
    """A finished run's test on the cases kept out."""
    write_predictions(run, data, data.cases, seed, noise, folder="predictions_kept_out", table="kept_out.csv")
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    manifest["kept_out"] = {"preparation": data.plan.key(), "cases": len(data.cases), "dice": 0.5}
    manifest["config"]["kept_out"] = str(data.folder)
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _write_metrics(run: Path, noise: float, taught: bool, epochs: int) -> None:
    terms = ["dice", "focal"] + (["similarity_coarse", "similarity_fine", "divergence"] if taught else [])
    columns = ["epoch", "step", "learning_rate", *(f"train_{term}" for term in terms), "choice_loss", "choice_dice"]
    with (run / "metrics.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for epoch in range(epochs):
            done = (epoch + 1) / 10
            values = [0.9**i * np.exp(-3 * done) + 0.02 for i in range(len(terms))]
            choice = [f"{0.9 - done / 2:.4f}", f"{(1 - noise / 2) * (1 - np.exp(-4 * done)):.4f}"]
            row = [epoch, 20 * (epoch + 1), 0.001, *(f"{value:.5f}" for value in values)]
            writer.writerow(row + (choice if epoch % 2 else ["", ""]))


def rows_of(folder: Path, table: str) -> dict[str, dict[str, str]]:
    with (folder / "tables" / f"{table}.csv").open(newline="", encoding="utf-8") as stream:
        return {row["arm"]: row for row in csv.DictReader(stream)}
