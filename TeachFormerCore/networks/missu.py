"""MISSU, in 3D: the transformer U-Net that distils itself, a baseline of Table 1.

Wang et al., "MISSU: 3D Medical Image Segmentation via Self-distilling TransUNet", IEEE TMI 2023 (arXiv 2206.00902);
compared with in Teach-Former (Hossain et al., Sci Rep 2025). A U-Net with a transformer at 1/8; while it trains, local
multi-scale fusion blocks refine the skips, and the skips A learn from the refined maps B (Eq. 5).

Shapes for b = 16 filters, embedding E, image ``(B, M, *S)``; tokens N = prod(S / 8). GN is a group norm in 8 groups,
BN a batch norm:

===========  ================  =========================================================================
stage        output            content
===========  ================  =========================================================================
encoder1..4  A1 (b, S) ..      conv3 (stride 2 from the second on) - GN - ReLU - conv3 - GN - ReLU
             A4 (8b, S/8)
embedding    (N, E)            BN - ReLU - conv3 (8b -> E), + learned positions
transformer  (N, E)            L pre-norm layers, then LN
bottleneck   (8b, S/8)         2 x [conv3 - BN - ReLU], then a residual with 2 x [conv3 - BN - ReLU]
decoder3..1  (4b, S/4) ..      conv1 to half the width, transposed conv k2 s2, concatenate A, conv1,
             (b, S)            a residual with 2 x [conv3 - BN - ReLU]
head         (out, S)          conv1
fusion       B1 (b, S) ..      of A1..A3: A + 4 dilated branches (fields 3, 7, 9, 19 voxels), then
             B3 (4b, S/4)      B1 = that, B(s) = conv1 of that + conv3 stride 2 of B(s-1)
===========  ================  =========================================================================

Two presets. ``teachformer`` is the size of Table 1: E 128, 4 heads, L 4, hidden 512. ``paper`` is MISSU's own: E 512,
8 heads, L 4, hidden 1024, a linear projection to E and one back to 8b in place of the convolutions on either side.

Attention: P is the bottleneck, average-pooled to S/16 (8b channels); Q is the last decoder map (b channels).

Parameters as published in Teach-Former (not counting positions and group norms), 2 x 144^3: 4.24 M and 154.38 G, ours
4,240,594 and 154.381 G by that rule, 4,988,050 parameters in truth. The encoder is inferred: it hits both figures, but
others would too. MISSU's own Table III (4 x 128^3, 4 classes: 10.50 M, 132.11 G) fits no setting of its text; our
``paper`` preset has 9.77 M and 132.97 G by the same rule. Fusion adds 1,107,744 parameters and 186.2 G there; MISSU
says 6.88 M and 64.5 G.

Not in the paper, so chosen here: ReLU after each dilated convolution of a branch; positions truncated normal 0.02, the
other weights PyTorch's defaults.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import SegmentationNetwork, resample_positions
from .blocks import TransformerLayer, learned_positions, to_map, to_tokens
from .layers import Convolution3d

TOKEN_STRIDE = 8
NORM_GROUPS = 8
PRESETS: dict[str, dict[str, int]] = {
    "teachformer": {"embedding": 128, "heads": 4, "layers": 4, "hidden": 512},
    "paper": {"embedding": 512, "heads": 8, "layers": 4, "hidden": 1024},
}
# The branches of a fusion block: the dilations of their 3^3 convolutions; all but the first end in a 1^3 one.
DILATIONS = ((1,), (3,), (1, 3), (1, 3, 5))


class MISSU(SegmentationNetwork):
    """MISSU in 3D; see the module's text for the layers.

    Args:
        in_channels: channels of the image, M.
        out_channels: classes, background included.
        spatial_dims: 3.
        image_size: the size the position embeddings are built for.
        filters: b, width of the finest maps; a multiple of 8.
        preset: ``teachformer`` or ``paper``, the size and surroundings of the transformer.
        transformer: False for the paper's plain U-Net.
        fusion: ``local``: ``training_forward`` returns the pairs (A, B) of Eq. 5 as ``self_distillation`` while the
            network is in training mode, and evaluation does not run the fusion at all. ``output``: the decoder takes
            B for its skips, at inference too (MISSU's MS-output), beside the pairs. None: no fusion blocks.

    Raises:
        ValueError: not 3D, or an option that does not exist.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int = 3,
        image_size: Sequence[int],
        filters: int = 16,
        preset: str = "teachformer",
        transformer: bool = True,
        fusion: str | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims, image_size=image_size
        )
        if spatial_dims != 3:
            raise ValueError(f"MISSU exists in 3D only, not in {spatial_dims}D.")
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not '{preset}'.")
        if fusion not in (None, "local", "output"):
            raise ValueError(f"fusion must be 'local', 'output' or None, not '{fusion}'.")
        if filters % NORM_GROUPS:
            raise ValueError(f"filters must be a multiple of {NORM_GROUPS}, not {filters}.")
        self.fusion_mode = fusion
        self.self_distils = fusion is not None
        self.training_only = {"fusion": {"fusion": None}} if fusion == "local" else {}
        widths = [filters * 2**level for level in range(4)]
        self.encoders = nn.ModuleList(
            encoder_stage(source, width, stride=2 if level else 1)
            for level, (source, width) in enumerate(zip([in_channels, *widths], widths, strict=False))
        )
        tokens = tuple(size // TOKEN_STRIDE for size in self.image_size)
        self.bottleneck = (
            Bottleneck(widths[3], tokens, **PRESETS[preset], convolutions=preset == "teachformer")
            if transformer
            else None
        )
        self.decoders = nn.ModuleList(Decoder(width) for width in reversed(widths[:3]))
        self.head = Convolution3d(filters, out_channels, 1)
        self.fusion = Fusion(widths[:3]) if fusion else None

    def maps(self, image: Tensor, *, training_terms: bool = False) -> dict[str, Any]:
        encoded: list[Tensor] = []
        x = image
        for encoder in self.encoders:
            x = encoder(x)
            encoded.append(x)
        skips = encoded[:3]

        wants_pairs = training_terms and self.training
        fused = self.fusion(skips) if self.fusion and (wants_pairs or self.fusion_mode == "output") else []
        pairs = list(zip(skips, fused, strict=True)) if fused and wants_pairs else []
        if self.fusion_mode == "output":
            skips = fused

        if self.bottleneck is not None:
            x = self.bottleneck(x)
        coarse = F.avg_pool3d(x, 2)
        for decoder, skip in zip(self.decoders, reversed(skips), strict=True):
            x = decoder(x, skip)
        maps = {"logits": self.head(x), "coarse": coarse, "fine": x}
        return maps | ({"self_distillation": pairs} if pairs else {})


def encoder_stage(source: int, width: int, *, stride: int) -> nn.Sequential:
    """2 x [conv3 - GN - ReLU], the first with this stride."""
    return nn.Sequential(
        Convolution3d(source, width, 3, stride=stride, padding=1),
        nn.GroupNorm(NORM_GROUPS, width),
        nn.ReLU(inplace=True),
        Convolution3d(width, width, 3, padding=1),
        nn.GroupNorm(NORM_GROUPS, width),
        nn.ReLU(inplace=True),
    )


def double_convolution(source: int, width: int) -> nn.Sequential:
    """2 x [conv3 - BN - ReLU]."""
    layers: list[nn.Module] = []
    for channels in (source, width):
        layers += [Convolution3d(channels, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """2 x [conv3 - BN - ReLU], plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = double_convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolutions(x)


class Bottleneck(nn.Module):
    """The transformer at 1/8 and what leads into and out of it: ``(B, width, *S/8)`` -> the same.

    Args:
        width: channels of the map.
        tokens: the token grid the positions are built for.
        embedding: E, width of the tokens.
        heads: attention heads.
        layers: transformer layers, L.
        hidden: width of the feed-forward's hidden layer.
        convolutions: convolutions around the transformer, else linear projections.
    """

    def __init__(
        self,
        width: int,
        tokens: Sequence[int],
        *,
        embedding: int,
        heads: int,
        layers: int,
        hidden: int,
        convolutions: bool,
    ) -> None:
        super().__init__()
        self.embedding = (
            nn.Sequential(nn.BatchNorm3d(width), nn.ReLU(), Convolution3d(width, embedding, 3, padding=1))
            if convolutions
            else Convolution3d(width, embedding, 1)
        )
        self.tokens = tuple(tokens)
        self.positions = learned_positions(prod(self.tokens), embedding)
        self.layers = nn.Sequential(*(TransformerLayer(embedding, heads=heads, hidden=hidden) for _ in range(layers)))
        self.norm = nn.LayerNorm(embedding)
        self.back = (
            nn.Sequential(double_convolution(embedding, width), Residual(width))
            if convolutions
            else Convolution3d(embedding, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        grid = x.shape[2:]
        x = to_tokens(x) + resample_positions(self.positions, self.tokens, grid)
        return self.back(to_map(self.norm(self.layers(x)), grid))


class Decoder(nn.Module):
    """Half the width, twice the size, the skip, and a residual: ``(2 width, S)`` -> ``(width, 2S)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = Convolution3d(2 * width, width, 1)
        self.up = nn.ConvTranspose3d(width, width, 2, stride=2)
        self.merge = Convolution3d(2 * width, width, 1)
        self.residual = Residual(width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.residual(self.merge(torch.cat([self.up(self.narrow(x)), skip], 1)))


class Fusion(nn.Module):
    """The multi-scale fusion of the skips A into the refined maps B, of the same shapes, finest first."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MultiScaleFusion(width) for width in widths)
        self.lateral = nn.ModuleList(Convolution3d(width, width, 1) for width in widths[1:])
        self.down = nn.ModuleList(
            Convolution3d(source, width, 3, stride=2, padding=1) for source, width in pairwise(widths)
        )

    def forward(self, skips: Sequence[Tensor]) -> list[Tensor]:
        fine, *coarser = (block(skip) for block, skip in zip(self.blocks, skips, strict=True))
        fused = [fine]
        for local, lateral, down in zip(coarser, self.lateral, self.down, strict=True):
            fused.append(lateral(local) + down(fused[-1]))
        return fused


class MultiScaleFusion(nn.Module):
    """The input plus four branches of dilated convolutions that see 3, 7, 9 and 19 voxels along an axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(dilated_branch(width, dilations) for dilations in DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        return x + sum(branch(x) for branch in self.branches)


def dilated_branch(width: int, dilations: Sequence[int]) -> nn.Sequential:
    """3^3 convolutions of these dilations, ReLU after each, and a 1^3 one where there is more than the plain one."""
    layers: list[nn.Module] = []
    for dilation in dilations:
        layers += [Convolution3d(width, width, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers) if dilations == (1,) else nn.Sequential(*layers, Convolution3d(width, width, 1))
