"""The way back to the reference: boxes and slabs give what comparing whole full-size volumes gives."""

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.grid import Grid, resample
from TeachFormerCore.data.image import voxels
from TeachFormerCore.inference import placing
from TeachFormerCore.inference.placing import Placing


def smooth_probabilities(classes: int, seed: int) -> np.ndarray:
    """Blobs of a few classes in a large background."""
    generator = np.random.default_rng(seed)
    size = (20, 24, 28)
    z, y, x = np.meshgrid(*map(np.arange, size), indexing="ij")
    logits = np.zeros((classes, *size))
    logits[0] = 4
    for number in range(1, classes):
        centre = generator.uniform(6, 14, 3)
        logits[number] = 9 - ((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2) / 4
    exponents = np.exp(logits - logits.max(0))
    return (exponents / exponents.sum(0)).astype(np.float32)


def way(direction: tuple[float, ...], start=(0, 0, 0), size=(41, 37, 33)) -> Placing:
    reference = sitk.Image((41, 37, 33), sitk.sitkInt16)
    reference.SetSpacing((1.3, 1.7, 2.1))
    reference.SetOrigin((1.0, 2.0, 3.0))
    reference.SetDirection(direction)
    grid = Grid(
        size=(28, 24, 20), spacing=(2.0, 2.5, 3.0), origin=(2.0, 1.0, 4.0), direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    )
    return Placing(model_grid=grid, reference=reference, start=start, size=size)


UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
TURNED = sitk.VersorTransform((0.1, 0.2, 0.9), 0.2).GetMatrix()


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("direction", [UPRIGHT, TURNED])
def test_the_label_is_the_largest_interpolated_probability(classes: int, direction, monkeypatch) -> None:
    monkeypatch.setattr(placing, "SLAB_VOXELS", 3000)  # several slabs
    probabilities, made = smooth_probabilities(classes, 3), way(direction)
    full = [
        voxels(resample(made._image(values), Grid.of(made.reference), background=1.0 if number == 0 else 0.0))
        for number, values in enumerate(probabilities)
    ]
    expected = np.argmax(full, axis=0)
    label = made.label(probabilities)
    assert set(np.unique(expected)) == set(range(classes))
    assert label.GetPixelID() == sitk.sitkUInt8
    assert label.GetDirection() == made.reference.GetDirection()
    # A probability of exactly a half may fall to either side.
    assert (voxels(label) != expected).sum() <= 2


def test_outside_of_a_region_everything_is_background() -> None:
    probabilities = np.zeros((2, 20, 24, 28), np.float32)
    probabilities[1] = 1.0
    made = way(UPRIGHT, start=(5, 6, 7), size=(10, 11, 12))
    label = voxels(made.label(probabilities))
    assert label[7:19, 6:17, 5:15].min() == 1
    assert label.sum() == 10 * 11 * 12
    placed = voxels(made.place(probabilities[0], outside=1.0))
    assert placed[7:19, 6:17, 5:15].max() == 0
    assert placed.sum() == placed.size - 10 * 11 * 12


def test_nothing_found_is_an_empty_mask() -> None:
    probabilities = np.stack([np.ones((20, 24, 28)), np.zeros((20, 24, 28))]).astype(np.float32)
    assert voxels(way(TURNED).label(probabilities)).sum() == 0
