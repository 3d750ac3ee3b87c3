"""A synthetic PET/CT of a thigh with a soft-tissue tumour: a case that is always there, for demo and smoke tests.

It is drawn from formulas and random numbers, holds no patient's data and proves nothing about accuracy: it is never
part of a training set and never a row of a results table.

The values are those of the real modality: CT in HU, PET in SUV (body weight). The label is the gross tumour volume:
viable tumour and necrotic core. Everything is computed slice by slice in millimetres from the centre of the field, x to
the patient's left, y to the back, z to the head (LPS); the leg is a right one, seen from the feet with its outer side
on the left of an axial picture.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

SIZE = (74, 74, 60)  # x, y, z
SPACING = (1.953125, 1.953125, 3.27)
CENTRE = (-96.0, -22.0, 640.0)  # LPS millimetres of the field's centre

AIR_HU, AIR_SUV = -1000.0, 0.01
CT_NOISE_HU = 12.0
PET_NOISE = 0.09  # standard deviation of the noise at SUV 1; it grows with the square root, as counts do
PET_FWHM_MM = 6.0
CT_NOISE_FWHM_MM = 2.6
# Voxels drawn around the field and cropped again, so that blurring knows what lies beyond its edges.
PAD = 6
FWHM_PER_SIGMA = 2.3548

TUMOUR_SEMI_AXES_MM = np.array([28.0, 24.0, 45.0])
LEG_CENTRE = np.array([19.0, 31.0])  # x, y from the tumour
LEG_REACH_MM = 112.0
FEMUR_FROM_LEG = np.array([-7.0, 4.0])

# Muscles by their centre from the leg's centre (x, y, mm), half-width (mm), HU, SUV and compartment. Compartments are
# parted by thicker fat planes than the muscles in one of them.
MUSCLES = (
    (-14.0, -52.0, 24.0, 58.0, 0.66, "front"),  # rectus femoris
    (-50.0, -22.0, 34.0, 60.0, 0.70, "front"),  # vastus lateralis
    (-12.0, -18.0, 27.0, 57.0, 0.72, "front"),  # vastus intermedius
    (28.0, -26.0, 30.0, 59.0, 0.70, "front"),  # vastus medialis
    (46.0, -28.0, 13.0, 55.0, 0.64, "sartorius"),
    (36.0, 6.0, 21.0, 57.0, 0.68, "inner"),  # adductor longus
    (28.0, 28.0, 29.0, 58.0, 0.72, "inner"),  # adductor magnus
    (58.0, 20.0, 13.0, 54.0, 0.64, "inner"),  # gracilis
    (32.0, 56.0, 21.0, 56.0, 0.68, "back"),  # semimembranosus
    (8.0, 58.0, 21.0, 55.0, 0.66, "back"),  # semitendinosus
    (-24.0, 48.0, 28.0, 56.0, 0.70, "back"),  # biceps femoris
    (-7.0, 22.0, 14.0, 57.0, 0.70, "inner"),  # adductors at the linea aspera
)
# Long structures: x, y from the leg's centre, tilt along z in x and y (mm per mm), radius, angle of the corners or None
# where round, HU, SUV; in the order they are painted.
ROUND_PARTS = (
    (30.0, -8.5, 0.02, -0.08, 7.6, 0.2, -88.0, 0.30),  # fat around the femoral vessels
    (2.0, 34.5, 0.0, 0.02, 6.4, 0.5, -86.0, 0.28),  # fat around the sciatic nerve
    (27.5, -9.5, 0.02, -0.08, 3.6, None, 47.0, 1.45),  # femoral artery
    (32.0, -6.0, 0.02, -0.08, 4.4, None, 44.0, 1.40),  # femoral vein
    (14.0, 6.0, 0.03, -0.03, 2.6, None, 43.0, 1.30),  # deep femoral vessels
    (2.0, 34.5, 0.0, 0.02, 3.6, None, 30.0, 0.60),  # sciatic nerve
    (66.0, -27.0, 0.03, -0.05, 2.4, None, 36.0, 1.20),  # great saphenous vein, under the skin
)


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """``images`` "CT" (int16, HU) and "PET" (float32, SUV), and ``label`` (uint8, 1 = tumour), all on one grid."""

    images: dict[str, sitk.Image]
    label: sitk.Image


def thigh_phantom(seed: int = 0, *, field_of_view_scale: float = 1.0) -> Phantom:
    """The phantom of a seed: the same voxels on every machine.

    Args:
        seed: the tumour's shape and texture, the muscles' outlines and the noise.
        field_of_view_scale: at least 1; how many times larger the field is along each axis. The leg goes on, air lies
            around it, and the voxels in the middle are those of the field of scale 1.
    """
    if field_of_view_scale < 1:
        raise ValueError(f"field_of_view_scale is {field_of_view_scale}: it must be at least 1.")
    spacing = np.array(SPACING)
    more = np.round((field_of_view_scale - 1) / 2 * np.array(SIZE)).astype(int)
    size = np.array(SIZE) + 2 * more
    x, y, z = ((np.arange(-PAD, n + PAD) - (n - 1) / 2) * s for n, s in zip(size, spacing, strict=True))
    leg = _Leg(np.random.default_rng([seed, 0]), x, y)
    ct, pet = np.full((2, len(z), len(y), len(x)), [[[[AIR_HU]]], [[[AIR_SUV]]]], np.float32)
    tumour = np.zeros(ct.shape, bool)
    for plane, height in enumerate(z):
        ct[plane][leg.window], pet[plane][leg.window], tumour[plane][leg.window] = leg.draw(height)
    inner = (slice(PAD, -PAD),) * 3
    ct_noise = _noise(np.random.default_rng([seed, 1]), more, CT_NOISE_FWHM_MM)
    pet_noise = _noise(np.random.default_rng([seed, 2]), more, PET_FWHM_MM)
    ct = np.clip(np.round(ct[inner] + CT_NOISE_HU * ct_noise), -1024, 3071).astype(np.int16)
    pet = _blur(pet, PET_FWHM_MM)
    pet = np.clip(pet + PET_NOISE * np.sqrt(pet) * pet_noise, 0, None)
    # As PET is stored: whole numbers times a slope.
    pet = (np.round(pet / 0.002) * 0.002).astype(np.float32)

    def image(array: np.ndarray) -> sitk.Image:
        made = sitk.GetImageFromArray(array)
        made.SetSpacing(SPACING)
        made.SetOrigin(tuple(float(v) for v in np.array(CENTRE) - (size - 1) / 2 * spacing))
        return made

    return Phantom(
        images={"CT": image(ct), "PET": image(pet)},
        label=image(np.ascontiguousarray(tumour[inner]).astype(np.uint8)),
    )


class _Waves:
    """A smooth random function of mean 0 and variance 1: a sum of plane waves, so it needs no grid."""

    def __init__(self, rng: np.random.Generator, wavelengths_mm: tuple[float, float], count: int = 16) -> None:
        directions = rng.standard_normal((count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self.k = directions * (2 * np.pi / rng.uniform(*wavelengths_mm, (count, 1)))
        self.phase = rng.uniform(0, 2 * np.pi, count)

    def plane(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """``(y, x)``: the function on the points of one axial plane."""
        along_y = np.exp(1j * (np.outer(y, self.k[:, 1]) + self.k[:, 2] * z + self.phase))
        along_x = np.exp(1j * np.outer(self.k[:, 0], x))
        return np.sqrt(2 / len(self.phase)) * (along_y @ along_x).real

    def at(self, points: np.ndarray) -> np.ndarray:
        """``(n,)``: the function at points ``(3, n)``."""
        return np.sqrt(2 / len(self.phase)) * np.cos(self.k @ points + self.phase[:, None]).sum(axis=0)


def _inside(distance: np.ndarray) -> np.ndarray:
    """How much of a voxel lies in a body whose surface is ``distance`` mm away (positive: outside it)."""
    return np.clip(0.5 - distance / SPACING[0], 0, 1)


class _Leg:
    """The anatomy, drawn plane by plane; each tissue is painted over what lies below it."""

    def __init__(self, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> None:
        # Only this part of a plane can hold the leg; the rest of a large field is air.
        (left, right), (front, back) = (
            np.searchsorted(v, [c - LEG_REACH_MM, c + LEG_REACH_MM]) for v, c in zip((x, y), LEG_CENTRE, strict=True)
        )
        self.window = slice(front, back), slice(left, right)
        self.x, self.y = x[left:right], y[front:back]
        self.grid_x, self.grid_y = np.meshgrid(self.x, self.y)
        self.lobes, self.core_lobes = _Waves(rng, (1.4, 2.6)), _Waves(rng, (1.5, 2.5))
        self.uptake, self.density = _Waves(rng, (16.0, 45.0)), _Waves(rng, (8.0, 24.0))
        self.streaks, self.septa = _Waves(rng, (7.0, 20.0)), _Waves(rng, (16.0, 40.0))
        self.shift_x, self.shift_y = _Waves(rng, (60.0, 120.0)), _Waves(rng, (60.0, 120.0))
        self.tilt = np.deg2rad(rng.uniform(-14, 14))
        self.core_shift = rng.uniform(-0.16, 0.16, 3)

    def draw(self, z: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """HU, SUV before blurring, and where the tumour is, of the plane at height ``z``."""
        self.ct, self.pet = np.full(self.grid_x.shape, AIR_HU), np.full(self.grid_x.shape, AIR_SUV)
        radius, distance, core = self._tumour(z)
        self._skin_and_fat(z, radius)
        self._muscles(z, radius)
        self._round_parts(z)
        self._femur(z)
        self._paint_tumour(z, distance, core)
        return self.ct, self.pet, distance < 0

    def _paint(self, cover: np.ndarray, hu: float | np.ndarray, suv: float | np.ndarray) -> None:
        self.ct += cover * (hu - self.ct)
        self.pet += cover * (suv - self.pet)

    def _tumour(self, z: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The radius relative to the ellipsoid, and the distances in mm from the tumour's and its core's surface."""
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        across, along = self.grid_x * cos - z * sin, self.grid_x * sin + z * cos
        unit = np.stack([across, self.grid_y, along]) / TUMOUR_SEMI_AXES_MM[:, None, None]
        radius = np.maximum(np.sqrt((unit**2).sum(axis=0)), 1e-3)
        distance, from_core = np.full((2, *radius.shape), np.inf)
        near = radius < 1.6
        unit, length = unit[:, near], np.sqrt(self.grid_x**2 + self.grid_y**2 + z**2)[near]
        distance[near] = length * (1 - (1 + 0.055 * self.lobes.at(unit / radius[near])) / radius[near])
        unit = unit - self.core_shift[:, None]
        core_radius = np.maximum(np.sqrt((unit**2).sum(axis=0)), 1e-3)
        core_surface = 0.46 + 0.07 * self.core_lobes.at(unit / core_radius)
        from_core[near] = (core_radius - core_surface) * TUMOUR_SEMI_AXES_MM[0]
        return radius, distance, from_core

    def _from_leg(self, z: float, radius: np.ndarray, push: float) -> tuple[np.ndarray, np.ndarray]:
        """Points from the leg's centre as they lay before the tumour grew and pushed its surroundings aside.

        The leg grows wider towards the hip; ``push`` (0..1) is the part of the tumour's section that was displaced.
        """
        pulled = np.sqrt(np.maximum(1 - push / radius**2, 0))
        wider = 1 + 0.14 * np.tanh(z / 190)
        return (self.grid_x * pulled - LEG_CENTRE[0]) / wider, (self.grid_y * pulled - LEG_CENTRE[1]) / wider

    def _skin_and_fat(self, z: float, radius: np.ndarray) -> None:
        x, y = self._from_leg(z, radius, 0.22)
        angle = np.arctan2(y, x)
        outline = 84 + 2.5 * np.cos(2 * angle) - 2.0 * np.cos(3 * angle + 0.6) + 1.5 * np.sin(angle)
        self.depth = outline - np.hypot(x, y)
        thickness = 13 + 5.0 * np.cos(angle - 0.5) + 1.5 * np.cos(2 * angle)
        self.under_fascia = thickness - self.depth
        streaks, septa = self.streaks.plane(self.x, self.y, z), self.septa.plane(self.x, self.y, z)
        self._paint(_inside(-self.depth), 5.0, 0.45)
        self._paint(_inside(2.2 - self.depth), -104 + 4 * streaks, 0.25)
        # Thin sheets of connective tissue run through the fat.
        self._paint(0.22 * np.exp(-((septa / 0.07) ** 2)) * _inside(2.2 - self.depth), 0.0, 0.35)

    def _muscles(self, z: float, radius: np.ndarray) -> None:
        x, y = self._from_leg(z, radius, 0.7)
        x = x + 2.6 * self.shift_x.plane(self.x, self.y, z)
        y = y + 2.6 * self.shift_y.plane(self.x, self.y, z)
        places = np.array([muscle[:2] for muscle in MUSCLES])
        power = np.stack([(x - mx) ** 2 + (y - my) ** 2 - half**2 for mx, my, half, *_ in MUSCLES])
        nearest, *others = np.argpartition(power, (0, 1, 2), axis=0)[:3]
        own = np.take_along_axis(power, nearest[None], axis=0)[0]
        to_border = []
        for other in others:
            rival = np.take_along_axis(power, other[None], axis=0)[0]
            to_border.append((rival - own) / (2 * np.linalg.norm(places[nearest] - places[other], axis=-1)))
        # Where three muscles meet both borders are near: the corner is rounded and fat fills it.
        second, third = to_border
        inward = second * third / np.maximum(np.hypot(second, third), 1e-6)
        compartments = np.unique([muscle[5] for muscle in MUSCLES], return_inverse=True)[1]
        plane = np.where(compartments[nearest] == compartments[others[0]], 0.4, 1.0)
        plane = plane * (1.1 + 0.4 * self.septa.plane(self.x, self.y, z))
        streaks = self.streaks.plane(self.x, self.y, z)
        self._paint(_inside(self.under_fascia), -78 + 6 * streaks, 0.35)
        hu, suv = (np.array([muscle[i] for muscle in MUSCLES], float)[nearest] for i in (3, 4))
        # Some fat lies between the fibres.
        body = _inside(plane - inward) * _inside(self.under_fascia + 0.6)
        self._paint(body, hu + 3.0 * streaks - 26 * np.maximum(streaks - 1.5, 0), suv + 0.03 * streaks)

    def _round_parts(self, z: float) -> None:
        x, y = self.grid_x - LEG_CENTRE[0], self.grid_y - LEG_CENTRE[1]
        for px, py, tilt_x, tilt_y, size, corners, hu, suv in ROUND_PARTS:
            from_x, from_y = x - px - tilt_x * z, y - py - tilt_y * z
            # Fat fills the gap between three muscles: its bed has three corners.
            shape = 1 + 0.38 * np.cos(3 * (np.arctan2(from_y, from_x) - corners)) if corners is not None else 1.0
            self._paint(_inside(np.hypot(from_x, from_y) - size * shape), hu, suv)

    def _femur(self, z: float) -> None:
        x = self.grid_x - LEG_CENTRE[0] - FEMUR_FROM_LEG[0]
        y = self.grid_y - LEG_CENTRE[1] - FEMUR_FROM_LEG[1] + 4.0 * np.cos(z / 130)  # the shaft bows forwards
        angle, distance = np.arctan2(y, x), np.hypot(x, y)
        ridge = 1.8 * np.exp(-(((angle - 1.7) / 0.35) ** 2))  # linea aspera
        self._paint(_inside(distance - 13.0 - 0.5 * np.cos(2 * angle) - ridge), 1280.0, 0.55)
        self._paint(_inside(distance - 7.0), -30.0, 1.30)

    def _paint_tumour(self, z: float, distance: np.ndarray, core: np.ndarray) -> None:
        if distance.min() > 2 * SPACING[0]:
            return
        density = self.density.plane(self.x, self.y, z)
        uptake = self.uptake.plane(self.x, self.y, z)
        self._paint(0.5 * _inside(distance - 1.2), -60.0, 0.45)  # a thin capsule with fat
        self._paint(_inside(distance), 43.0 + 4 * density, np.clip(7.6 + 0.8 * uptake, 6.0, 9.0))
        self._paint(_inside(core / 2), 19.0 + 2 * density, 1.5)


def _kernels(fwhm_mm: float) -> list[np.ndarray]:
    """Gaussian weights of sum 1 over ``2 PAD + 1`` voxels, for z, y, x."""
    offsets = np.arange(-PAD, PAD + 1)
    kernels = [np.exp(-0.5 * (offsets * s * FWHM_PER_SIGMA / fwhm_mm) ** 2) for s in reversed(SPACING)]
    kernels = [np.where(kernel > 1e-5, kernel, 0) for kernel in kernels]
    return [(kernel / kernel.sum()).astype(np.float32) for kernel in kernels]


def _blur(array: np.ndarray, fwhm_mm: float) -> np.ndarray:
    """Gaussian blur of ``(z, y, x)``, without the ``PAD`` voxels at each side whose surroundings are unknown."""
    for axis, kernel in enumerate(_kernels(fwhm_mm)):
        count = array.shape[axis] - 2 * PAD
        part = [slice(None)] * 3
        blurred: np.ndarray | float = 0.0
        for i in np.flatnonzero(kernel):
            part[axis] = slice(i, i + count)
            blurred = blurred + kernel[i] * array[tuple(part)]
        array = np.asarray(blurred)
    return array


def _noise(rng: np.random.Generator, more: np.ndarray, fwhm_mm: float) -> np.ndarray:
    """Blurred noise of standard deviation 1; its middle is the same whatever the field's size."""
    more = more[::-1]
    inner = np.array(SIZE[::-1]) + 2 * PAD
    middle = rng.standard_normal(inner, np.float32)
    white = rng.standard_normal(inner + 2 * more, np.float32)
    white[tuple(slice(m, m + n) for m, n in zip(more, inner, strict=True))] = middle
    gain = np.prod([np.sqrt((kernel**2).sum()) for kernel in _kernels(fwhm_mm)])
    return _blur(white, fwhm_mm) / np.float32(gain)
