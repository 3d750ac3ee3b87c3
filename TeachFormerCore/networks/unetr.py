"""UNETR: teacher T3.

Hatamizadeh et al., "UNETR: Transformers for 3D Medical Image Segmentation", WACV 2022 (arXiv 2103.10504); used by
Teach-Former (Hossain et al., Sci Rep 2025) in its usual size. A ViT-B/16 encoder whose hidden states feed a
convolutional decoder.

Shapes for f = 16 features, hidden size H = 768, image ``(B, M, *S)``; tokens N = prod(S / 16). Res and Up are
``ResidualBlock`` and ``UpBlock``, "x2" a transposed convolution k2 s2:

==========  ==============  ==========================================================================
stage       output          content
==========  ==============  ==========================================================================
embedding   (N, H)          conv k16 s16 (M -> H) + learned positions
layers      (N, H) x 12     pre-norm attention (12 heads, no qkv bias) and feed-forward 768-3072-768
encoder1    (f, S)          Res of the image
encoder2    (2f, S/2)       state after layer 4: x2, then twice x2 - Res
encoder3    (4f, S/4)       state after layer 7: x2, then once x2 - Res
encoder4    (8f, S/8)       state after layer 10: x2
decoder5    (8f, S/8)       Up of the normed last state, with encoder4
decoder4..  (4f, S/4) ..    Up, with encoder3, encoder2, encoder1
decoder2    (f, S)
head        (out, S)        conv1
==========  ==============  ==========================================================================

The paper names the states z3, z6, z9; the authors' implementation (in MONAI) counts from 0 without the embedding, so
that the states after layers 4, 7 and 10 leave, and so do ours.

Attention: P is the normed last hidden state on its grid (768 channels, S/16); Q is decoder2 (16 channels).

Parameters, as published (Table 1 does not count the position embeddings): 3D 2 x 144^3 95.76 M, ours 95,764,130 by
that rule, 96,324,002 in truth; 2D 3 x 384^2 87.51 M, ours 87,512,322 and 87,954,690. MONAI 1.6 shows 18,432 more, a
layer norm per layer that is never used.

Weights: PyTorch's defaults as in the authors' published network; positions truncated normal, 0.02.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor, nn

from .base import COARSE_STRIDE, SegmentationNetwork, resample_positions
from .blocks import ResidualBlock, TransformerLayer, UpBlock, doubling, learned_positions, to_map, to_tokens
from .layers import CONVOLUTION


class UNETR(SegmentationNetwork):
    """UNETR in 2D or 3D; see the module's text for the layers.

    Args:
        in_channels: channels of the image, M.
        out_channels: classes, background included.
        spatial_dims: 2 or 3.
        image_size: the size the position embeddings are built for.
        features: f, width of the finest decoder map.
        hidden_size: H, width of the tokens.
        feed_forward_size: width of the feed-forward's hidden layer.
        heads: attention heads, a divisor of ``hidden_size``.
        layers: transformer layers.
        skip_layers: after which layers, from 1, the states for encoder2, encoder3 and encoder4 leave.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        image_size: Sequence[int],
        features: int = 16,
        hidden_size: int = 768,
        feed_forward_size: int = 3072,
        heads: int = 12,
        layers: int = 12,
        skip_layers: Sequence[int] = (4, 7, 10),
    ) -> None:
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims, image_size=image_size
        )
        first, second, third = skip_layers if len(skip_layers) == 3 else (0, 0, 0)
        if not 0 < first < second < third <= layers:
            raise ValueError(f"skip_layers must be three rising numbers of 1 to {layers}, not {tuple(skip_layers)}.")
        convolution = CONVOLUTION[spatial_dims]
        widths = [features * 2**level for level in range(4)]

        self.tokens = tuple(size // COARSE_STRIDE for size in self.image_size)
        self.embedding = convolution(in_channels, hidden_size, COARSE_STRIDE, stride=COARSE_STRIDE)
        self.positions = learned_positions(prod(self.tokens), hidden_size)
        self.layers = nn.ModuleList(
            TransformerLayer(hidden_size, heads=heads, hidden=feed_forward_size) for _ in range(layers)
        )
        self.skip_layers = tuple(skip_layers)
        self.norm = nn.LayerNorm(hidden_size)

        self.image_encoder = ResidualBlock(spatial_dims, in_channels, features)
        self.state_encoders = nn.ModuleList(
            projected_state(spatial_dims, hidden_size, widths[level], doublings=3 - level) for level in (1, 2, 3)
        )
        self.decoders = nn.ModuleList(
            UpBlock(spatial_dims, source, width)
            for source, width in zip([hidden_size, *reversed(widths)], reversed(widths), strict=False)
        )
        self.head = convolution(features, out_channels, 1)

    def maps(self, image: Tensor, *, training_terms: bool = False) -> dict[str, Any]:
        x = self.embedding(image)
        grid = x.shape[2:]
        x = to_tokens(x) + resample_positions(self.positions, self.tokens, grid)
        skips = [self.image_encoder(image)]
        for number, layer in enumerate(self.layers, 1):
            x = layer(x)
            if number in self.skip_layers:
                skips.append(self.state_encoders[len(skips) - 1](to_map(x, grid)))

        coarse = to_map(self.norm(x), grid)
        x = coarse
        for decoder, skip in zip(self.decoders, reversed(skips), strict=True):
            x = decoder(x, skip)
        return {"logits": self.head(x), "coarse": coarse, "fine": x}


def projected_state(spatial_dims: int, source: int, width: int, *, doublings: int) -> nn.Sequential:
    """A hidden state brought to a skip's size: x2 to its width, then ``doublings`` times x2 and a residual block."""
    layers = [doubling(spatial_dims, source, width)]
    for _ in range(doublings):
        layers += [doubling(spatial_dims, width, width), ResidualBlock(spatial_dims, width, width)]
    return nn.Sequential(*layers)
