"""H-DenseFormer: teacher T1 (32 filters) and, light, student S1 (8 filters).

Shi et al., "H-DenseFormer: An Efficient Hybrid Densely Connected Transformer for Multimodal Tumor Segmentation",
MICCAI 2023; used by Teach-Former (Hossain et al., Sci Rep 2025). A U-Net whose four encoder levels receive, by
addition, the upsampled tokens of one densely connected transformer per modality (multi-path embedding, MPE).

Shapes for f filters, M modalities, image ``(B, M, *S)``; tokens N = prod(S / 16), c = 4f:

===================  =======================  ===================================================================
stage                output                   content
===================  =======================  ===================================================================
paths                (cM, S/16)               per modality conv k16 s16 (1 -> c) + positions, dropout, 6 DCT blocks
deep                 (8f, S/8)                conv3 - IN - ReLU - x2 linear upsampling
up1, up2, up3        (4f, S/4) .. (f, S)      the same again, three times
encoder1..4          (f, S) .. (8f, S/8)      2 x [conv3 - IN affine - ReLU], max pooling between, + up3/up2/up1/deep
decoder3..1          (4f, S/4) .. (f, S)      transposed conv k3 s2, concatenate skip, 2 x [conv3 - IN affine - ReLU]
heads                (out, S) (+ 1/2 .. 1/8)  conv1; the lower three only with deep supervision
===================  =======================  ===================================================================

Attention: P is the encoder4 sum, average-pooled to S/16 (8f channels); Q is the last decoder map (f channels).
``coarse_tap="mpe"`` takes the tokens of all paths (cM channels) for P instead, which is nearer to the paper's words.

**As published, the paths are spatially dead**: a DCT block has no residual, and six in a row shrink the differences
between tokens about tenfold each (standard deviation over space / root mean square of the MPE map at initialisation:
1e-5 at 32 filters, 1e-6 at 8), and training does not revive them (0 after 240 steps on phantoms). ``residual=True``
builds the living variant: a residual around each block, no further parameters, a contrast of 0.7 at first and of 0.6
after those steps. The published form is the default, because Table 1 is about it.

Parameters as published (Table 1 counts the four heads, but no position embeddings), ours by that rule and in truth:

====  ================  =========  ===========  ===========
name  input             published  Table 1's    true
====  ================  =========  ===========  ===========
T1    3D 2 x 144^3      11.38 M    11,374,664   11,561,288
S1    3D 2 x 144^3      1.53 M     1,526,360    1,573,016
T1    2D 3 x 384^2      4.98 M     4,975,848    5,197,032
S1    2D 3 x 384^2      1.25 M     1,256,928    1,312,224
====  ================  =========  ===========  ===========

The last one is 0.55 % off because the paper cuts 1.2569 to 1.25. The default build has the full-size head only.

Weights: positions zero as published, the rest PyTorch's defaults.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import COARSE_STRIDE, SegmentationNetwork, resample_positions
from .layers import AVERAGE_POOL, CONVOLUTION, INSTANCE_NORM, LINEAR_MODE, MAX_POOL, TRANSPOSED_CONVOLUTION

GROWTH = 32
HEADS = 8
DENSE_LAYERS = 4
DROPOUT = 0.5
# The heads at 1/1, 1/2, 1/4 and 1/8 enter a deeply supervised loss with these weights.
AUXILIARY_WEIGHTS = (0.5, 0.25, 0.125)


class HDenseFormer(SegmentationNetwork):
    """H-DenseFormer in 2D or 3D; see the module's text for the layers.

    Args:
        in_channels: modalities M, one transformer path each.
        out_channels: classes, background included.
        spatial_dims: 2 or 3.
        image_size: the size the position embeddings are built for.
        filters: f, 32 for the teacher and 8 for the student.
        transformer_depth: dense layers per path; four make one DCT block.
        deep_supervision: adds the heads at 1/2, 1/4 and 1/8, returned as ``auxiliary`` by ``training_forward``.
        coarse_tap: ``pooled`` (encoder4 sum, pooled) or ``mpe`` (the tokens of all paths).
        residual: the living variant: a residual around each DCT block, without further parameters.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        image_size: Sequence[int],
        filters: int,
        transformer_depth: int = 24,
        deep_supervision: bool = False,
        coarse_tap: str = "pooled",
        residual: bool = False,
    ) -> None:
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims, image_size=image_size
        )
        if transformer_depth % DENSE_LAYERS:
            raise ValueError(f"transformer_depth must be a multiple of {DENSE_LAYERS}, not {transformer_depth}.")
        if coarse_tap not in ("pooled", "mpe"):
            raise ValueError(f"coarse_tap must be 'pooled' or 'mpe', not '{coarse_tap}'.")
        self.coarse_tap = coarse_tap
        self.training_only = {"auxiliary_heads": {"deep_supervision": False}}
        convolution = CONVOLUTION[spatial_dims]
        widths = [filters * 2**level for level in range(4)]

        tokens = tuple(size // COARSE_STRIDE for size in self.image_size)
        self.paths = nn.ModuleList(
            TransformerPath(spatial_dims, 4 * filters, tokens, transformer_depth // DENSE_LAYERS, residual=residual)
            for _ in range(in_channels)
        )
        self.deep = UpsampledTokens(spatial_dims, 4 * filters * in_channels, widths[3])
        self.ups = nn.ModuleList(UpsampledTokens(spatial_dims, widths[level + 1], widths[level]) for level in (2, 1, 0))
        self.encoders = nn.ModuleList(
            double_convolution(spatial_dims, source, width)
            for source, width in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = MAX_POOL[spatial_dims](2)
        self.decoders = nn.ModuleList(Decoder(spatial_dims, widths[level]) for level in (2, 1, 0))
        self.head = convolution(filters, out_channels, 1)
        self.auxiliary_heads = nn.ModuleList(
            convolution(width, out_channels, 1) for width in widths[1:] if deep_supervision
        )
        self.coarse_pool = AVERAGE_POOL[spatial_dims](2)

    def maps(self, image: Tensor, *, training_terms: bool = False) -> dict[str, Any]:
        tokens = torch.cat([path(image[:, i : i + 1]) for i, path in enumerate(self.paths)], 1)
        attention = [self.deep(tokens)]
        for up in self.ups:
            attention.append(up(attention[-1]))

        levels: list[Tensor] = []
        x = image
        for encoder, added in zip(self.encoders, reversed(attention), strict=True):
            x = encoder(x) + added
            levels.append(x)
            if len(levels) < len(self.encoders):
                x = self.pool(x)

        decoded = [levels[3]]
        for decoder, skip in zip(self.decoders, reversed(levels[:3]), strict=True):
            decoded.append(decoder(decoded[-1], skip))

        maps = {
            "logits": self.head(decoded[-1]),
            "coarse": self.coarse_pool(levels[3]) if self.coarse_tap == "pooled" else tokens,
            "fine": decoded[-1],
        }
        if training_terms and self.auxiliary_heads:
            lower = reversed(decoded[:-1])
            heads = zip(self.auxiliary_heads, lower, AUXILIARY_WEIGHTS, strict=True)
            maps["auxiliary"] = [(head(level), weight) for head, level, weight in heads]
        return maps


def double_convolution(spatial_dims: int, source: int, width: int) -> nn.Sequential:
    """2 x [conv3 without bias - affine instance norm - ReLU]."""
    convolution, norm = CONVOLUTION[spatial_dims], INSTANCE_NORM[spatial_dims]
    layers: list[nn.Module] = []
    for channels in (source, width):
        layers += [
            convolution(channels, width, 3, padding=1, bias=False),
            norm(width, affine=True),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UpsampledTokens(nn.Module):
    """conv3 - instance norm - ReLU, then twice the size by linear interpolation."""

    def __init__(self, spatial_dims: int, source: int, width: int) -> None:
        super().__init__()
        self.convolution = CONVOLUTION[spatial_dims](source, width, 3, padding=1)
        self.norm = INSTANCE_NORM[spatial_dims](width)
        self.mode = LINEAR_MODE[spatial_dims]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.convolution(x)), inplace=True)
        return F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=False)


class Decoder(nn.Module):
    """Transposed convolution to twice the size, concatenation with the skip, double convolution."""

    def __init__(self, spatial_dims: int, width: int) -> None:
        super().__init__()
        self.up = TRANSPOSED_CONVOLUTION[spatial_dims](2 * width, width, 3, stride=2, padding=1, output_padding=1)
        self.convolutions = double_convolution(spatial_dims, 2 * width, width)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convolutions(torch.cat([self.up(x), skip], 1))


class TransformerPath(nn.Module):
    """One modality's path: 16-voxel patches embedded as tokens, then densely connected transformer (DCT) blocks."""

    def __init__(self, spatial_dims: int, width: int, tokens: Sequence[int], blocks: int, *, residual: bool) -> None:
        super().__init__()
        self.embedding = CONVOLUTION[spatial_dims](1, width, COARSE_STRIDE, stride=COARSE_STRIDE)
        self.tokens = tuple(tokens)
        self.positions = nn.Parameter(torch.zeros(1, prod(self.tokens), width))
        self.dropout = nn.Dropout(DROPOUT)
        self.blocks = nn.ModuleList(DCTBlock(width, residual=residual) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        grid = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        x = self.dropout(x + resample_positions(self.positions, self.tokens, grid))
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2).unflatten(2, tuple(grid))


class DCTBlock(nn.Module):
    """Four transformer layers of growth 32, each fed with all that came before; as published, no residual around."""

    def __init__(self, width: int, *, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.ModuleList(DenseLayer(width + GROWTH * number) for number in range(DENSE_LAYERS))
        self.out = nn.Sequential(
            nn.Linear(width + GROWTH * DENSE_LAYERS, 2 * GROWTH),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(2 * GROWTH, width),
            nn.Dropout(DROPOUT),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        x = tokens
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 2)
        return tokens + self.out(x) if self.residual else self.out(x)


class DenseLayer(nn.Module):
    """Squeeze to 32 features, attention and feed-forward with residuals; passes on the feed-forward of that."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(width, GROWTH)
        self.attention_norm = nn.LayerNorm(GROWTH)
        self.attention = SelfAttention()
        self.feed_forward_norm = nn.LayerNorm(GROWTH)
        self.feed_forward = nn.Sequential(
            nn.Linear(GROWTH, 2 * GROWTH),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(2 * GROWTH, GROWTH),
            nn.Dropout(DROPOUT),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        x = self.attention(self.attention_norm(x)) + x
        x = self.feed_forward(self.feed_forward_norm(x)) + x
        return self.feed_forward(self.feed_forward_norm(x))


class SelfAttention(nn.Module):
    """Multi-head self-attention over ``(B, N, 32)``: 8 heads of 4 dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(GROWTH, 3 * GROWTH, bias=False)
        self.softmax = nn.Softmax(dim=-1)
        self.dropout = nn.Dropout(DROPOUT)
        self.project = nn.Linear(GROWTH, GROWTH)
        self.project_dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, HEADS, GROWTH // HEADS)).permute(2, 0, 3, 1, 4)
        weights = self.softmax(query @ key.transpose(-2, -1) * (GROWTH // HEADS) ** -0.5)
        x = (self.dropout(weights) @ value).transpose(1, 2).flatten(2)
        return self.project_dropout(self.project(x))
