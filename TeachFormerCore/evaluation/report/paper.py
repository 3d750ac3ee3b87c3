"""What the papers say: ``paper_results.csv``, and the row that stands beside one of ours."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent.parent / "paper_results.csv"
# Networks by the names of the two papers.
TEACHERS = {"h_denseformer": "T1", "swin_unetr": "T2", "unetr": "T3"}
TEACH_FORMER = {
    "h_denseformer": "T1: H-DenseFormer",
    "swin_unetr": "T2: Swin-UNETR",
    "unetr": "T3: UNETR",
    "h_denseformer_light": "S1: H-DenseFormer (Light)",
    "swin_unetr_light": "S2: Swin-UNETR (Light)",
    "ux_net": "S3: 3DUXNet",
    "missu": "MISSU",
    "mdvit": "MDViT",
}
MISSU = {"missu": ("MISSU",), "unetr": ("UNETR",), "unet": ("3D UNet", "UNet")}
BEST_FOLD = "Table 2: mean over five folds; elsewhere, of these the one with the best validation score, tested on"
PROTOCOLS = {
    "HECKTOR21": f"{BEST_FOLD} 44 other cases",
    "PI-CAI22": f"{BEST_FOLD} 40 other cases; there a mean over slices, in which an empty one counts 1",
    "BraTS2019": "validation set, one run",
    "CHAOS": "five test cases, one run",
}
# Eq. 4 as printed: what an arm of ours must have to stand beside the paper's figures. Both forms of Eq. 1 count, and
# whether teachers were asked online or cached does not matter.
SIMILARITY_FORMS = ("paper", "attention", "balanced")
DISTILLATION = {
    "divergence_form": "kl",
    "direction": "student_teacher",
    "temperature": 1.0,
    "foreground_balanced": False,
    "balancing": "none",
    "teacher_weighting": "fixed",
    "calibrate": False,
    "drop_teacher": 0.0,
    "shuffle_teachers": False,
}
# Eq. 3 of its teachers and students; networks of other papers have losses of their own.
LOSS = {
    "loss.dice": 1.0,
    "loss.focal": 1.0,
    "loss.focal_gamma": 2.0,
    "loss.whole_batch_dice": False,
    "loss.label_smoothing": 0.0,
}
TRAINING = {"augmentation.channel_dropout": 0.0}
MISSU_DATASETS = {"brats": "BraTS2019", "chaos": "CHAOS"}


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One figure of a paper; Dice and IoU 0..1 as ours, deviations too.

    Attributes:
        source: paper, dataset and split, for people.
        parameters: millions.
        gflops: as printed there, which are multiply-accumulates of a profiler.
    """

    source: str
    dice: float | None
    dice_sd: float | None
    iou: float | None
    parameters: float | None
    gflops: float | None


@dataclass(frozen=True, kw_only=True)
class PaperSource:
    """The paper's dataset that ours is, or stands in for.

    Attributes:
        paper, dataset: as in the file.
        same: whether it is the very dataset.
    """

    paper: str
    dataset: str
    same: bool

    @property
    def about(self) -> str:
        """How far the figures can be compared."""
        protocol = PROTOCOLS[self.dataset]
        if self.same:
            return f"{self.paper} on {self.dataset}: the same dataset, its own splits and protocol ({protocol})"
        return (
            f"{self.paper} on {self.dataset}, another dataset, by its own protocol ({protocol}): the order of the rows "
            "can be compared, the numbers cannot"
        )


def paper_source(dataset: str, spatial_dims: int) -> PaperSource:
    """Where to look for the figures that stand beside those of a dataset.

    Teach-Former has PET/CT in 3D (HECKTOR21) and prostate MR in 2D (PI-CAI22); MISSU has BraTS2019 and CHAOS.
    """
    name = dataset.casefold().replace("-", "").replace("_", "")
    for part, known in MISSU_DATASETS.items():
        if part in name:
            return PaperSource(paper="MISSU", dataset=known, same=True)
    known = "HECKTOR21" if spatial_dims == 3 else "PI-CAI22"
    return PaperSource(paper="Teach-Former", dataset=known, same=known.casefold().replace("-", "") in name)


def paper_row(
    source: PaperSource, network: str, teachers: Sequence[str], *, split: str = "test", note: tuple[str, ...] = ("",)
) -> PaperRow | None:
    """The paper's figures for a network, alone or taught.

    Args:
        source: where.
        network: our name of it.
        teachers: our names of the teachers' networks; none for a network alone.
        split: ``test`` (Tables 1, 3 and 4) or ``cv5`` (Table 2); of Teach-Former.
        note: what the row's note may begin with, the first that is found, e.g. ``Table 4 losses=L_AFS only``.
    """
    if source.paper == "MISSU":
        return _missu(source, network) if not teachers and split == "test" else None
    role = ""
    if teachers:
        codes = [TEACHERS.get(name) for name in teachers]
        if None in codes:
            return None
        role = "student_kd_" + "+".join(sorted(str(code) for code in codes))
    rows = [
        row
        for row in _rows()
        if row["paper"] == source.paper
        and row["dataset"] == source.dataset
        and row["split"] == split
        and row["model"] == TEACH_FORMER.get(network)
        and (row["role"] == role if role else not row["role"].startswith("student_kd"))
        and row["note"].startswith(note)
    ]
    rows.sort(key=lambda row: next(i for i, start in enumerate(note) if row["note"].startswith(start)))
    return _one(rows[0], f"{source.paper}, {source.dataset}, {rows[0]['note'].partition(';')[0]}") if rows else None


def _missu(source: PaperSource, network: str) -> PaperRow | None:
    """The mean over the regions of Table I, or the liver of Table II."""
    rows = [
        row
        for row in _rows()
        if row["dataset"] == source.dataset
        and row["model"] in MISSU.get(network, ())
        and row["note"].startswith(("Table I ", "Table II "))
    ]
    if not rows:
        return None
    values = [float(row["dice"]) / 100 for row in rows]
    over = f"mean over {len(rows)} regions" if len(rows) > 1 else rows[0]["note"]
    return PaperRow(
        source=f"MISSU, {source.dataset}, {over}",
        dice=sum(values) / len(values),
        dice_sd=None,
        iou=None,
        parameters=None,
        gflops=None,
    )


def _one(row: dict[str, str], source: str) -> PaperRow:
    def number(key: str, scale: float) -> float | None:
        return float(row[key]) / scale if row[key] else None

    return PaperRow(
        source=source,
        dice=number("dice", 100),
        dice_sd=number("dice_sd", 100),
        iou=number("miou", 100),
        parameters=number("params_M", 1),
        gflops=number("gflops", 1),
    )


@cache
def _rows() -> tuple[dict[str, str], ...]:
    with FILE.open(newline="", encoding="utf-8") as stream:
        return tuple(csv.DictReader(stream))
