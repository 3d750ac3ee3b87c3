"""What every network of the package shares: the three maps it returns, and images of any size."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COARSE_STRIDE = 16


class SegmentationNetwork(nn.Module):
    """A segmentation network with two attention taps.

    A subclass implements :meth:`maps` for images whose sizes are multiples of ``size_divisor``; here, once for all
    networks, an image of any size is padded at the far end of each axis with 0, the normalised background of every
    channel, and what comes out is cropped back.

    Args:
        in_channels: channels of the image, M.
        out_channels: classes, background included.
        spatial_dims: 2 or 3.
        image_size: the size the network is built for (position embeddings); other sizes work too.

    Attributes:
        size_divisor: sizes that :meth:`maps` takes are multiples of it.
        training_only: submodules that evaluation does not need, with the constructor arguments that leave them out.
        self_distils: in training mode, :meth:`training_forward` returns ``self_distillation``.
    """

    size_divisor = COARSE_STRIDE

    def __init__(self, *, in_channels: int, out_channels: int, spatial_dims: int, image_size: Sequence[int]) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, not {spatial_dims}.")
        if len(image_size) != spatial_dims:
            raise ValueError(f"image_size {tuple(image_size)} must have {spatial_dims} numbers, as spatial_dims says.")
        if in_channels < 1 or out_channels < 2:
            raise ValueError("A network needs at least 1 input channel and 2 classes (background included).")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.spatial_dims = spatial_dims
        self.image_size = self.padded_size(image_size)
        self.training_only: dict[str, dict[str, Any]] = {}
        self.self_distils = False

    @classmethod
    def padded_size(cls, size: Sequence[int]) -> tuple[int, ...]:
        """The size an image is padded to: multiples of ``size_divisor``, and at least two of them along one axis.

        One position alone at the coarsest level would leave nothing to normalise over.
        """
        padded = [-(-n // cls.size_divisor) * cls.size_divisor for n in size]
        if all(n == cls.size_divisor for n in padded):
            padded[-1] *= 2
        return tuple(padded)

    def maps(self, image: Tensor, *, training_terms: bool = False) -> dict[str, Any]:
        """The network itself, for sizes that are multiples of ``size_divisor``.

        Args:
            image: ``(B, M, *S)``.
            training_terms: also what only a training loss needs, see :meth:`training_forward`.

        Returns:
            ``logits`` ``(B, out, *S)``, ``coarse`` P ``(B, K, *S/16)``, ``fine`` Q ``(B, C, *S)``; with
            ``training_terms``, where the network has them, ``auxiliary`` and ``self_distillation``.
        """
        raise NotImplementedError

    def training_forward(self, image: Tensor) -> dict[str, Any]:
        """All maps of an image of any size: ``logits``, ``coarse``, ``fine``, and a network's extra training terms.

        The extra terms, where the network has them: ``auxiliary`` [(logits, weight)], logits at the image's size or
        at ceil of a fraction of it, and ``self_distillation`` [(a, b)], pairs of maps of the padded image.
        """
        return self._maps_of_any_size(image, training_terms=True)

    def forward_with_attention(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits ``(B, out, *S)``, coarse map P ``(B, K, *ceil(S/16))`` and fine map Q ``(B, C, *S)``."""
        maps = self._maps_of_any_size(image)
        return maps["logits"], maps["coarse"], maps["fine"]

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(B, out, *S)`` of an image ``(B, M, *S)``."""
        return self._maps_of_any_size(image)["logits"]

    def inference_form(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What to build and to load where nothing is trained: the constructor arguments that leave the training-only
        submodules out, and the weights without theirs."""
        arguments: dict[str, Any] = {}
        for leaving_out in self.training_only.values():
            arguments |= leaving_out
        prefixes = tuple(f"{name}." for name in self.training_only)
        return arguments, {name: value for name, value in self.state_dict().items() if not name.startswith(prefixes)}

    def _maps_of_any_size(self, image: Tensor, *, training_terms: bool = False) -> dict[str, Any]:
        size = tuple(int(n) for n in image.shape[2:])
        if image.dim() != self.spatial_dims + 2 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"{type(self).__name__} takes (batch, {self.in_channels}, *{self.spatial_dims} sizes), "
                f"not {tuple(image.shape)}."
            )
        padded = self.padded_size(size)
        if padded == size:
            return self.maps(image, training_terms=training_terms)
        padding = [extra for n, p in zip(reversed(size), reversed(padded), strict=True) for extra in (0, p - n)]
        maps = self.maps(F.pad(image, padding), training_terms=training_terms)

        def cropped(x: Tensor) -> Tensor:
            # A map at 1/k of the padded image keeps ceil(n / k) of an axis.
            kept = (slice(0, -(-n * m // p)) for n, m, p in zip(size, x.shape[2:], padded, strict=True))
            inside = (slice(None), slice(None), *kept)
            return x[inside]

        maps |= {name: cropped(maps[name]) for name in ("logits", "coarse", "fine")}
        if "auxiliary" in maps:
            maps["auxiliary"] = [(cropped(logits), weight) for logits, weight in maps["auxiliary"]]
        return maps


def resample_positions(positions: Tensor, built: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """Learned position embeddings ``(1, N, C)`` for another token grid, linearly resampled.

    Args:
        positions: the embeddings, tokens in row-major order of the grid ``built``.
        built: the token grid they were built for, N = its product.
        wanted: the token grid of the image at hand.

    Raises:
        RuntimeError: ``positions`` does not hold one embedding per token of ``built``.
    """
    if tuple(built) == tuple(wanted):
        return positions
    grid = positions.transpose(1, 2).unflatten(2, tuple(built))
    mode = {2: "bilinear", 3: "trilinear"}[len(built)]
    return torch.flatten(F.interpolate(grid, size=tuple(wanted), mode=mode, align_corners=False), 2).transpose(1, 2)
