"""Every network of the table, in every number of dimensions it exists in, at a size that computes in a moment."""

from typing import Any

from TeachFormerCore.networks import NETWORKS, SegmentationNetwork, build_network

ALL = [(name, dims) for name, entry in NETWORKS.items() for dims in entry.arguments]
# With the small arguments, a light network is the same as the other of its kind.
KINDS = [(name, dims) for name, dims in ALL if not name.endswith("_light")]
STUDENTS_3D = ["h_denseformer", "swin_unetr", "ux_net"]
SMALL_ARGUMENTS: dict[str, dict[str, Any]] = {
    "h_denseformer": {"filters": 4, "transformer_depth": 4},
    "h_denseformer_light": {"filters": 4, "transformer_depth": 4},
    "swin_unetr": {"features": 6},
    "swin_unetr_light": {"features": 6},
    "unetr": {
        "features": 4, "hidden_size": 48, "feed_forward_size": 64, "heads": 4, "layers": 4, "skip_layers": (1, 2, 3)
    },
    "ux_net": {"widths": (4, 6, 8, 12), "hidden_size": 16},
    "missu": {"filters": 8},
    "mdvit": {},
    "unet": {"widths": (2, 4, 4, 6, 8)},
}  # fmt: skip


def small_network(
    name: str, dims: int, *, in_channels: int = 2, size: int = 32, **arguments: Any
) -> SegmentationNetwork:
    """A network by name with few channels, built for images of ``size`` along each axis."""
    return build_network(
        name,
        in_channels=in_channels,
        out_channels=2,
        spatial_dims=dims,
        image_size=(size,) * dims,
        **(SMALL_ARGUMENTS[name] | arguments),
    )
