"""The box around the patient: nothing of it is lost, and no smaller than the window."""

import numpy as np

from TeachFormerCore.inference.body import body_box


def image_with(*places: tuple[int, int, int], size: tuple[int, int, int] = (40, 50, 60)) -> np.ndarray:
    image = np.zeros((2, *size), np.float32)
    for number, place in enumerate(places):
        image[(number % 2, *place)] = 0.5
    return image


def test_it_holds_every_voxel_of_every_channel_exactly() -> None:
    image = image_with((5, 6, 7), (30, 40, 50))
    assert body_box(image, (8, 8, 8)) == (slice(5, 31), slice(6, 41), slice(7, 51))


def test_dark_tissue_of_an_mr_counts_and_noise_of_air_does_not() -> None:
    image = image_with((5, 6, 7))
    image[1, 10, 10, 10] = -0.4
    image[0, 39, 49, 59] = 0.01
    assert body_box(image, (2, 2, 2)) == (slice(5, 11), slice(6, 11), slice(7, 11))


def test_it_is_as_large_as_the_window_where_the_image_is() -> None:
    box = body_box(image_with((0, 25, 59), size=(40, 50, 60)), (16, 16, 64))
    assert box == (slice(0, 16), slice(18, 34), slice(0, 60))


def test_an_empty_image_is_kept_whole() -> None:
    assert body_box(image_with(), (8, 8, 8)) == (slice(0, 40), slice(0, 50), slice(0, 60))
