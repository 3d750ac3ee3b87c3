"""Training patches: one random affine view of a case, replayable from (seed, epoch, case).

Every draw is recorded in a :class:`PatchDraw`, so that a view can be replayed exactly and does not depend on the order
in which cases are read, on workers or on what was drawn before. Images are normalised so that background is 0; what
lies outside a case is filled with 0 in image and label. Datasets are often cropped around the lesion; that its position
be no cue, the anchor is moved within the patch, and the image is cut at each side so that its border is none either.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How far a view may differ from the image.

    Attributes:
        flip: probability of mirroring each axis.
        rotation_degrees: largest rotation about each axis.
        scale: largest enlargement or reduction, 0.15 for a factor of 1/1.15 to 1.15.
        cut: largest part of the image's extent that is cut off at each end of each axis.
        shift: the anchor lies anywhere within this part of the patch around its centre, per axis (0..1).
        foreground: probability that the anchor is a labelled voxel rather than any voxel of the image.
        gain: largest relative change of a channel's contrast.
        offset: largest shift of a channel's values, in normalised units; the background stays 0.
        noise: standard deviation of the added noise, in normalised units.
        channel_dropout: probability that the student's view lacks a channel (0, the normalised background, everywhere),
            per channel, never all of them: one student then serves every subset of its channels.
    """

    flip: float = 0.5
    rotation_degrees: float = 15.0
    scale: float = 0.15
    cut: float = 0.2
    shift: float = 0.5
    foreground: float = 0.67
    gain: float = 0.1
    offset: float = 0.0
    noise: float = 0.02
    channel_dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PatchDraw:
    """Everything random about one view. Tuples run over the spatial axes in array order, or over the channels.

    Attributes:
        cuts: part of the extent that is cut off at the near and the far end of each axis.
        on_foreground: whether the anchor is a labelled voxel.
        anchor: which of the candidate voxels it is, 0..1.
        place: where in the patch it lies, 0..1 per axis.
        mirrored: axes that are flipped.
        angles: rotations in radians: about each axis in 3D, one in 2D.
        scale: factor of enlargement.
        gains: contrast factor per channel.
        noise_seed: seed of the added noise.
        kept: channels that the student sees. `sample_patch` leaves all of them in: whoever shows a view to the student
            blanks the others, and a teacher, whose knowledge of the full set is the point, sees the view whole.
        plane: which of the candidate slices of a volume a 2D view shows, 0..1.
        offsets: added to what is not background, per channel.
    """

    cuts: tuple[tuple[float, float], ...]
    on_foreground: bool
    anchor: float
    place: tuple[float, ...]
    mirrored: tuple[bool, ...]
    angles: tuple[float, ...]
    scale: float
    gains: tuple[float, ...]
    noise_seed: int
    kept: tuple[bool, ...]
    plane: float = 0.5
    offsets: tuple[float, ...] = ()


def case_random(seed: int, epoch: int, case: str, *stream: int) -> np.random.Generator:
    """The random numbers of a case in an epoch; another stream for whatever is drawn beside the view."""
    name = int.from_bytes(hashlib.sha256(case.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, epoch, name, *stream])


def draw_patch(
    config: AugmentationConfig, *, seed: int, epoch: int, case: str, channels: int, spatial_dims: int
) -> PatchDraw:
    """The view of a case in an epoch: a pure function of (seed, epoch, case)."""
    random = case_random(seed, epoch, case)
    limit = np.log1p(config.scale)
    cuts = random.random((spatial_dims, 2)) * config.cut
    return PatchDraw(
        cuts=tuple((float(near), float(far)) for near, far in cuts),
        on_foreground=bool(random.random() < config.foreground),
        anchor=float(random.random()),
        place=tuple(0.5 + config.shift * (random.random(spatial_dims) - 0.5)),
        mirrored=tuple(bool(value) for value in random.random(spatial_dims) < config.flip),
        angles=tuple(np.radians(random.uniform(-1, 1, 3 if spatial_dims == 3 else 1) * config.rotation_degrees)),
        scale=float(np.exp(random.uniform(-limit, limit))),
        gains=tuple(1 + config.gain * random.uniform(-1, 1, channels)),
        noise_seed=int(random.integers(2**63)),
        kept=_draw_kept(random, config.channel_dropout, channels),
        plane=float(random.random()),
        offsets=tuple(config.offset * random.uniform(-1, 1, channels)),
    )


def _draw_kept(random: np.random.Generator, dropout: float, channels: int) -> tuple[bool, ...]:
    """Drawn after the view, which so looks the same with and without dropout; where all would go, one stays."""
    kept = random.random(channels) >= dropout
    kept[random.integers(channels)] |= not kept.any()
    return tuple(bool(value) for value in kept)


def rotation_matrix(angles: tuple[float, ...]) -> np.ndarray:
    """``(2, 2)`` for one angle; ``(3, 3)`` for three, the product of the rotations about each axis in turn."""
    if len(angles) == 1:
        cosine, sine = np.cos(angles[0]), np.sin(angles[0])
        return np.array([[cosine, -sine], [sine, cosine]])
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        rotation = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        rotation[a, a] = rotation[b, b] = np.cos(angle)
        rotation[a, b], rotation[b, a] = -np.sin(angle), np.sin(angle)
        matrix = rotation @ matrix
    return matrix


def sample_patch(
    image: np.ndarray,
    label: np.ndarray,
    draw: PatchDraw,
    *,
    patch_size: tuple[int, ...],
    spacing: tuple[float, ...],
    noise: float,
) -> "tuple[Tensor, Tensor]":
    """The view of a case that a draw describes.

    A 2D view of a volume is one of its slices: a labelled one where the draw is on the foreground and there is one.

    Args:
        image: ``(C, *S)`` normalised, background 0.
        label: ``(*S)`` whole numbers.
        draw: what is random.
        patch_size: size of the view.
        spacing: mm per voxel along the axes of the arrays, so that rotations stay rigid on anisotropic voxels.
        noise: standard deviation of the added noise.

    Returns:
        image ``(C, *patch)`` float32 (linear) and label ``(*patch)`` uint8 (nearest).
    """
    import torch  # here, so that a configuration, which names the augmentation, is read without it
    from torch.nn import functional as F

    if label.ndim > len(patch_size):
        labelled = np.flatnonzero(label.any((1, 2))) if draw.on_foreground else np.empty(0, int)
        planes = labelled if labelled.size else np.arange(len(label))
        plane = planes[int(draw.plane * planes.size)]
        image, label = image[:, plane], label[plane]
    kept = tuple(slice(int(near * n), n - int(far * n)) for n, (near, far) in zip(label.shape, draw.cuts, strict=True))
    every_channel = (slice(None), *kept)
    image, label = image[every_channel], label[kept]
    patch = np.array(patch_size)
    candidates = np.flatnonzero(label) if draw.on_foreground else np.empty(0, int)
    chosen = candidates[int(draw.anchor * candidates.size)] if candidates.size else int(draw.anchor * label.size)
    anchor = np.array(np.unravel_index(chosen, label.shape), float)

    # Patch voxel o shows the image at anchor + matrix (o - place).
    millimetres = np.array(spacing, float)
    matrix = rotation_matrix(draw.angles) * (millimetres / millimetres[:, None])
    matrix = matrix @ np.diag(np.where(draw.mirrored, -1.0, 1.0)) / draw.scale
    place = np.array(draw.place) * (patch - 1)
    axes = [np.arange(n) - p for n, p in zip(patch, place, strict=True)]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    coordinates = anchor + offsets @ matrix.T
    # grid_sample wants -1..1 from the first to the last voxel centre, in x, y, z order. Along an axis with one voxel it
    # finds that voxel everywhere: such an axis gets a second one, of background.
    shape = np.maximum(label.shape, 2)
    beyond = [(0, 0), *((0, more) for more in shape - label.shape)]
    normalised = coordinates * (2 / (shape - 1)) - 1
    grid = torch.from_numpy(np.ascontiguousarray(normalised[None, ..., ::-1], dtype=np.float32))

    def view(array: np.ndarray, mode: str) -> "Tensor":
        source = torch.from_numpy(np.pad(array.astype(np.float32), beyond))[None]
        return F.grid_sample(source, grid, mode=mode, padding_mode="zeros", align_corners=True)[0]

    sampled = view(image, "bilinear")
    sampled *= torch.tensor(draw.gains, dtype=torch.float32).reshape(-1, *[1] * patch.size)
    if any(draw.offsets):
        sampled += torch.tensor(draw.offsets, dtype=torch.float32).reshape(-1, *[1] * patch.size) * (sampled != 0)
    if noise > 0:
        generator = torch.Generator().manual_seed(draw.noise_seed)
        sampled += noise * torch.randn(sampled.shape, generator=generator)
    return sampled, view(label[None], "nearest")[0].to(torch.uint8)
