"""Swin-UNETR with its decoder cut at 1/16: teacher T2 and, light, student S2.

Hatamizadeh et al., "Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors in MRI Images", BrainLes
2021 (arXiv 2201.01266), on Liu et al., "Swin Transformer", ICCV 2021; used by Teach-Former (Hossain et al., Sci Rep
2025). The published network needs sizes that are multiples of 32 and cannot take 144^3. What reproduces the figures
of Table 1 runs all four stages, but takes the bottleneck at 1/16 and leaves the decoder level of 1/32 out.

Shapes for f features (3D 24 and 12, 2D 48 and 24 for teacher and student), image ``(B, M, *S)``; Res and Up are
``ResidualBlock`` and ``UpBlock``:

==============  ==================  ====================================================================
stage           output              content
==============  ==================  ====================================================================
embedding       h0 (f, S/2)         conv k2 s2
stage 1..3      h1 (2f, S/4) ..     2 Swin layers (3, 6, 12 heads, windows of 7, the second one shifted),
                h3 (8f, S/16)       then patch merging (2^n neighbours -> LayerNorm -> Linear)
stage 4         (16f, S/32)         the same with 24 heads; only Table 1 counts it, nothing uses it
skips           (f, S) (f, S/2)     Res of the image, of h0, of h1; h2 as it is. Every h is layer-normed
                (2f, S/4) (4f,S/8)  over its channels, without weights
bottleneck      (8f, S/16)          Res of h3
decoder4..1     (4f, S/8) ..(f, S)  Up, with the skips h2, Res(h1), Res(h0), Res(image)
head            (out, S)            conv1
==============  ==================  ====================================================================

Attention: P is the bottleneck (8f, S/16); Q is the last decoder map (f, S).

Parameters as published (Table 1 does not count the tables of relative positions), ours by that rule, ours in truth
with stage 4, and as built by default, without it (the same function; 28 to 43 % of the weights never got a gradient):

=====  ===================  ==========  ==========  ==========  =========
name   input                published   Table 1's   true        default
=====  ===================  ==========  ==========  ==========  =========
T2     3D 2 x 144^3, f 24   5.38 M      5,386,970   5,584,700   3,996,620
S2     3D 2 x 144^3, f 12   1.35 M      1,350,974   1,548,704   1,070,576
T2     2D 3 x 384^2, f 48   11.04 M     11,042,066  11,057,276  6,317,516
S2     2D 3 x 384^2, f 24   2.76 M      2,767,178   2,782,388   1,588,100
=====  ===================  ==========  ==========  ==========  =========

Operations of S2 3D are published as 75.68 G; ours are 74.68 G, and as the other three agree to four digits the
published figure is most probably a misprint.

Weights: tables of relative positions truncated normal 0.02 as in Swin; the rest PyTorch's defaults.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import SegmentationNetwork
from .blocks import POSITION_STD, ResidualBlock, UpBlock
from .layers import CONVOLUTION, SoftmaxAttention, channels_first, channels_last

WINDOW = 7
HEADS = (3, 6, 12, 24)
LAYERS_PER_STAGE = 2
MLP_RATIO = 4
# What is added to the score of two tokens that the shift has brought into one window without being neighbours.
APART = -100.0


class SwinUNETR(SegmentationNetwork):
    """Swin-UNETR with its decoder cut at 1/16, in 2D or 3D; see the module's text for the layers.

    Args:
        in_channels: channels of the image, M.
        out_channels: classes, background included.
        spatial_dims: 2 or 3.
        image_size: not used: the network has no absolute positions.
        features: f, a multiple of 3.
        keep_unused_stage: also runs stage 4, on which nothing depends, as the published counts do.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        image_size: Sequence[int],
        features: int,
        keep_unused_stage: bool = False,
    ) -> None:
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims, image_size=image_size
        )
        if features % HEADS[0]:
            raise ValueError(f"features must be a multiple of {HEADS[0]}, not {features}.")
        convolution = CONVOLUTION[spatial_dims]
        self.training_only = {"stages.3": {"keep_unused_stage": False}}
        stages = 4 if keep_unused_stage else 3

        self.embedding = convolution(in_channels, features, 2, stride=2)
        self.stages = nn.ModuleList(
            SwinStage(spatial_dims, features * 2**level, heads=HEADS[level]) for level in range(stages)
        )
        self.image_encoder = ResidualBlock(spatial_dims, in_channels, features)
        self.state_encoders = nn.ModuleList(
            ResidualBlock(spatial_dims, features * 2**level, features * 2**level) for level in (0, 1)
        )
        self.bottleneck = ResidualBlock(spatial_dims, 8 * features, 8 * features)
        self.decoders = nn.ModuleList(
            UpBlock(spatial_dims, source * features, width * features)
            for source, width in ((8, 4), (4, 2), (2, 1), (1, 1))
        )
        self.head = convolution(features, out_channels, 1)

    def maps(self, image: Tensor, *, training_terms: bool = False) -> dict[str, Any]:
        x = channels_last(self.embedding(image))
        states = [x]
        for stage in self.stages:
            states.append(stage(states[-1]))
        h0, h1, h2, h3 = (normed(state) for state in states[:4])

        skips = [self.image_encoder(image), self.state_encoders[0](h0), self.state_encoders[1](h1), h2]
        coarse = self.bottleneck(h3)
        x = coarse
        for decoder, skip in zip(self.decoders, reversed(skips), strict=True):
            x = decoder(x, skip)
        return {"logits": self.head(x), "coarse": coarse, "fine": x}


def normed(x: Tensor) -> Tensor:
    """A state ``(B, *S, C)``, normed over its channels, as ``(B, C, *S)``."""
    return channels_first(F.layer_norm(x, x.shape[-1:]))


class SwinStage(nn.Module):
    """Two Swin layers, the second with shifted windows, then patch merging: ``(B, *S, C)`` -> ``(B, *S/2, 2C)``."""

    def __init__(self, spatial_dims: int, width: int, *, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SwinLayer(spatial_dims, width, heads=heads, shifted=number % 2 == 1) for number in range(LAYERS_PER_STAGE)
        )
        self.merging = PatchMerging(spatial_dims, width)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.merging(x)


class SwinLayer(nn.Module):
    """Pre-norm windowed attention and feed-forward over ``(B, *S, C)``, each with a residual."""

    def __init__(self, spatial_dims: int, width: int, *, heads: int, shifted: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(spatial_dims, width, heads=heads, shifted=shifted)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


class WindowAttention(nn.Module):
    """Self-attention within windows of 7 along each axis, with a learned bias per relative position.

    A map ``(B, *S, C)`` is filled up with zeros to whole windows. An axis of at most 7 is one window of its length.
    When shifted, the windows of the longer axes start 3 further; the last one then joins the two ends of the axis,
    which must not see each other.
    """

    def __init__(self, spatial_dims: int, width: int, *, heads: int, shifted: bool) -> None:
        super().__init__()
        self.heads = heads
        self.shifted = shifted
        self.bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** spatial_dims, heads))
        nn.init.trunc_normal_(self.bias_table, std=POSITION_STD)
        self.qkv = nn.Linear(width, 3 * width)
        self.attend = SoftmaxAttention()
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        size = [int(n) for n in x.shape[1:-1]]
        window = [min(WINDOW, n) for n in size]
        shift = [WINDOW // 2 if self.shifted and n > WINDOW else 0 for n in size]
        axes = tuple(range(1, len(size) + 1))

        filling = [extra for n, w in zip(reversed(size), reversed(window), strict=True) for extra in (0, -n % w)]
        if any(filling):
            x = F.pad(x, (0, 0, *filling))
        if any(shift):
            x = torch.roll(x, [-s for s in shift], axes)
        coordinates = window_coordinates(window, x.device)
        x = self.attend_regions(self.qkv(x), window, shift, coordinates, self.position_bias(coordinates), ())
        x = self.project(x)
        if any(shift):
            x = torch.roll(x, shift, axes)
        inside = (slice(None), *(slice(0, n) for n in size))
        return x[inside] if any(filling) else x

    def position_bias(self, coordinates: Tensor) -> Tensor:
        """The learned bias ``(heads, n, n)`` between the n tokens of a window with these coordinates."""
        index = 0
        for axis in coordinates:
            index = index * (2 * WINDOW - 1) + axis[:, None] - axis[None, :] + WINDOW - 1
        return self.bias_table[index].permute(2, 0, 1)

    def attend_regions(
        self,
        qkv: Tensor,
        window: list[int],
        shift: list[int],
        coordinates: Tensor,
        bias: Tensor,
        joined: tuple[bool, ...],
    ) -> Tensor:
        """Attends region by region: along each shifted axis, the last window is apart from the others.

        All windows of a region have the same bias, so that it is never spread out over windows. A call settles the
        axis number ``len(joined)``; ``joined`` says whether the region joins the ends of the axes before it.
        """
        axis = len(joined)
        if axis == len(window):
            return self.attend_windows(qkv, window, bias)
        if not shift[axis]:
            return self.attend_regions(qkv, window, shift, coordinates, bias, (*joined, False))
        inner = int(qkv.shape[axis + 1]) - window[axis]
        beyond = coordinates[axis] >= window[axis] - shift[axis]
        apart = (beyond[:, None] != beyond[None, :]).to(bias.dtype) * APART
        regions = (
            self.attend_regions(qkv.narrow(axis + 1, 0, inner), window, shift, coordinates, bias, (*joined, False)),
            self.attend_regions(
                qkv.narrow(axis + 1, inner, window[axis]), window, shift, coordinates, bias + apart, (*joined, True)
            ),
        )
        return torch.cat(regions, axis + 1)

    def attend_windows(self, qkv: Tensor, window: list[int], bias: Tensor) -> Tensor:
        """``(B, *S, 3C)`` of whole windows -> ``(B, *S, C)``, the same bias ``(heads, n, n)`` in all of them."""
        dims = len(window)
        batch, *size = (int(n) for n in qkv.shape[:-1])
        grid = [n // w for n, w in zip(size, window, strict=True)]
        split = [part for pair in zip(grid, window, strict=True) for part in pair]
        x = qkv.unflatten(-1, (3, self.heads, -1)).reshape(batch, *split, 3, self.heads, -1)
        outer, inner = range(1, 2 * dims, 2), range(2, 2 * dims + 1, 2)
        x = x.permute(2 * dims + 1, 0, *outer, 2 * dims + 2, *inner, 2 * dims + 3)
        query, key, value = x.flatten(1, dims + 1).flatten(3, -2)

        x = self.attend(query, key, value, bias[None])
        x = x.reshape(batch, *grid, self.heads, *window, -1)
        together = [axis for number in range(dims) for axis in (1 + number, dims + 2 + number)]
        return x.permute(0, *together, dims + 1, 2 * dims + 2).reshape(batch, *size, -1)


def window_coordinates(window: Sequence[int], device: torch.device) -> Tensor:
    """The place of each token of a window along each axis, ``(axes, n)``, tokens in row-major order."""
    places = torch.meshgrid(*(torch.arange(n, device=device) for n in window), indexing="ij")
    return torch.stack([place.flatten() for place in places])


class PatchMerging(nn.Module):
    """2^n neighbours become one token of twice the width: ``(B, *S, C)`` -> ``(B, *ceil(S/2), 2C)``."""

    def __init__(self, spatial_dims: int, width: int) -> None:
        super().__init__()
        # Neighbours in order of their number of steps, then of the axis, as in the published weights.
        self.offsets = sorted(
            product((0, 1), repeat=spatial_dims), key=lambda steps: (sum(steps), [-step for step in steps])
        )
        self.norm = nn.LayerNorm(2**spatial_dims * width)
        self.reduction = nn.Linear(2**spatial_dims * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        filling = [extra for n in reversed(x.shape[1:-1]) for extra in (0, int(n) % 2)]
        if any(filling):
            x = F.pad(x, (0, 0, *filling))
        every_other = [(slice(None), *(slice(step, None, 2) for step in steps)) for steps in self.offsets]
        neighbours = [x[places] for places in every_other]
        return self.reduction(self.norm(torch.cat(neighbours, -1)))
