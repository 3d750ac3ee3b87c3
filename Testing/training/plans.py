"""The plan of the small prepared datasets that these tests train on."""

from collections.abc import Sequence
from pathlib import Path

from TeachFormerCore.data.channels import Channel, default_normalisation
from TeachFormerCore.data.prepared import PreparationPlan, write_plan


def write_ct_pet_plan(folder: Path, *, patients: Sequence[str], label: str, extent: tuple[float, float, float]) -> None:
    """CT and PET at 4 mm, one label, a case per patient; ``extent`` of each image in mm."""
    plan = PreparationPlan(
        dataset=f"{label}s",
        licence=None,
        reference=None,
        channels=tuple(
            Channel(name=name, modality=name, normalisation=default_normalisation(name)) for name in ("CT", "PET")
        ),
        labels={"background": 0, label: 1},
        spacing=(4.0, 4.0, 4.0),
        patients={patient: patient for patient in patients},
        sources={},
    )
    write_plan(folder, plan, dict.fromkeys(patients, extent))
