"""A plain U-Net: the floor that any other network of its cost has to beat.

Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nat Methods
2021, and "nnU-Net Revisited" (arXiv 2404.09556): two convolutions with instance norm and LeakyReLU per level, strided
convolutions down, transposed ones up, heads on the upper levels while training. The blocks are MONAI DynUNet's.

Shapes for widths w0 .. w4, image ``(B, M, *S)``; Block is twice conv3 - IN affine - LeakyReLU:

==========  ==========================  ==========================================
stage       output                      content
==========  ==========================  ==========================================
encoder     (w0, S) (w1, S/2) ..        Block; below full size its first conv has stride 2
bottleneck  (w4, S/16)                  Block with stride 2
decoder     (w3, S/8) .. (w0, S)        transposed conv k2 s2, concat with skip, Block
head        (out, S)                    conv1
==========  ==========================  ==========================================

Attention: P is the bottleneck (w4 channels, S/16); Q is the last decoder map (w0 channels).

The default widths cost what the light H-DenseFormer (S1) costs: in 3D 1.41 M parameters and 2.15 GMACs on
2 x 64 x 48 x 48 voxels (S1: 1.53 M, 2.26 GMACs), in 2D 1.09 M and 3.85 GMACs on 3 x 384^2 (S1: 1.31 M, 3.84 GMACs).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .base import SegmentationNetwork
from .layers import CONVOLUTION

LEAKY_SLOPE = 0.01
# nnU-Net halves the weight per level and leaves the two lowest out; the head at full size has weight 1.
AUXILIARY_WEIGHTS = (0.5, 0.25)


class UNet(SegmentationNetwork):
    """A plain U-Net in 2D or 3D; see the module's text for the layers. Needs MONAI.

    Args:
        in_channels: channels of the image, M.
        out_channels: classes, background included.
        spatial_dims: 2 or 3.
        image_size: any; the network has nothing that depends on it.
        widths: channels at 1/1, 1/2, 1/4, 1/8 and 1/16.
        deep_supervision: adds the heads at 1/2 and 1/4, returned as ``auxiliary`` by ``training_forward``.

    Raises:
        ModuleNotFoundError: MONAI is not installed.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        spatial_dims: int,
        image_size: Sequence[int],
        widths: Sequence[int],
        deep_supervision: bool = False,
    ) -> None:
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims, image_size=image_size
        )
        from monai.networks.nets.dynunet import DynUNet

        if len(widths) != 5:
            raise ValueError(f"widths must be five numbers, one per level, not {tuple(widths)}.")
        self.training_only = {"auxiliary_heads": {"deep_supervision": False}}
        # Only the parts: the assembled network holds each of them a second time, nested.
        parts = DynUNet(
            spatial_dims,
            in_channels,
            out_channels,
            kernel_size=[3] * 5,
            strides=[1, 2, 2, 2, 2],
            upsample_kernel_size=[2] * 4,
            filters=widths,
            norm_name=("INSTANCE", {"affine": True}),
            act_name=("leakyrelu", {"inplace": True, "negative_slope": LEAKY_SLOPE}),
        )
        self.encoder = nn.ModuleList([parts.input_block, *parts.downsamples])
        self.bottleneck = parts.bottleneck
        self.decoder = parts.upsamples
        self.head = parts.output_block
        self.auxiliary_heads = nn.ModuleList(
            CONVOLUTION[spatial_dims](width, out_channels, 1) for width in widths[1:3] if deep_supervision
        )

    def maps(self, image: Tensor, *, training_terms: bool = False) -> dict[str, Any]:
        x, skips = image, []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        coarse = x = self.bottleneck(x)
        levels = []
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = block(x, skip)
            levels.append(x)
        maps = {"logits": self.head(x), "coarse": coarse, "fine": x}
        if training_terms and self.auxiliary_heads:
            heads = zip(self.auxiliary_heads, levels[-2::-1], AUXILIARY_WEIGHTS, strict=False)
            maps["auxiliary"] = [(head(level), weight) for head, level, weight in heads]
        return maps
