"""Whether an image's values can be what its channel needs: HU in CT, SUV in PET, a signal in MR.

A network answers wrong units with a confident wrong mask, so they are refused before it sees them.
"""

import math

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .channels import Channel
from .image import voxels

CT_MUST_REACH_HU = -500.0
# What lies below is no CT number but padding: scanners fill what they have not seen with -2000 or -3024.
PADDING_BELOW_HU = -1100.0
# A tenth of a body is never denser; where the rescale intercept is missing, water is at 1024.
DENSEST_TENTH_HU = 800.0
SAMPLES = 2**20  # voxels that are enough to say so
SUV_LIMIT = 100.0
# Any tissue has more somewhere.
LEAST_SUV = 0.1
# With the units known from the header, only a wrong weight or dose explains more; urine alone can pass 100.
KNOWN_SUV_LIMIT = 1000.0
# Interpolation and some reconstructions undershoot 0 a little.
NEGATIVE_SUV_LIMIT = -1.0

_SUV_KNOWN = "TeachFormer.SuvKnown"


def mark_as_suv(image: sitk.Image) -> None:
    """Notes on a PET image in memory that its SUV was computed (not taken on trust), for `check_channel`."""
    image.SetMetaData(_SUV_KNOWN, "1")


def check_channel(image: sitk.Image, channel: Channel, source: str) -> None:
    """Refuses an image whose values cannot be what the channel needs.

    Args:
        source: what the user calls the image, e.g. its path.

    Raises:
        InputError: values that are not finite, a constant image, CT that is not in HU, PET that is not in SUV.
    """
    values = voxels(image)
    # NumPy's extremes are NaN where any value is, unlike comparisons with it.
    lowest, highest = float(values.min()), float(values.max())
    named = f"The {channel.name} image {source}"
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise InputError(
            f"{named} holds values that are not finite (NaN or infinity): replace them with the background's value and "
            "save it again."
        )
    if lowest == highest:
        raise InputError(f"{named} has the same value, {lowest:g}, in every voxel: check that it is the right file.")
    if channel.modality == "CT" and (fault := _ct_fault(values, lowest)):
        raise InputError(
            f"{named} {fault}: CT must look like HU (reaches {CT_MUST_REACH_HU:g}, as air does). Check that it is a CT "
            "and export it with its rescale intercept applied."
        )
    if channel.modality != "PET":
        return
    if lowest < NEGATIVE_SUV_LIMIT:
        raise InputError(
            f"{named} goes down to {lowest:g}: SUV is not negative. Check that it is a PET and not another channel."
        )
    if image.HasMetaDataKey(_SUV_KNOWN):
        if not LEAST_SUV <= highest <= KNOWN_SUV_LIMIT:
            raise InputError(
                f"{named} reaches SUV {highest:.4g} after its conversion: check the weight and dose in the DICOM "
                "header, or the --suv-factor given."
            )
    elif highest > SUV_LIMIT:
        raise InputError(
            f"{named} reaches {highest:.4g}, above SUV {SUV_LIMIT:g}: it is probably in Bq/mL. Pass --pet-units bqml "
            "(with --suv-factor) or give the folder of its DICOM series."
        )
    elif highest < LEAST_SUV:
        raise InputError(
            f"{named} reaches only {highest:.4g}, where any tissue has SUV {LEAST_SUV:g}: it was probably converted "
            "twice, or is in another unit. Give the image in SUV or the folder of its DICOM series."
        )


def _ct_fault(values: np.ndarray, lowest: float) -> str | None:
    """What an image does that cannot be in HU, or None.

    Where nothing but padding is as low as air there may be no air in it, so that its densest tissue has to tell.
    """
    if lowest > CT_MUST_REACH_HU:
        return f"starts at {lowest:g}"
    if lowest >= PADDING_BELOW_HU:
        return None
    seen = values[values >= PADDING_BELOW_HU]
    if not seen.size:
        return f"holds nothing above {PADDING_BELOW_HU:g}"
    # Interpolation leaves a seam of low values beside padding, of less than 2 % of the image.
    air, dense = np.percentile(seen[:: max(1, seen.size // SAMPLES)], (2, 90))
    if air <= CT_MUST_REACH_HU or dense <= DENSEST_TENTH_HU:
        return None
    return f"starts at {air:.0f} beside its padding of {lowest:g}, and a tenth of it is above {dense:.0f}"
