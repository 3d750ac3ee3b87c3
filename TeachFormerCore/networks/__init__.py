"""The networks by name: one per file, all with the taps of :class:`SegmentationNetwork`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .base import SegmentationNetwork
from .h_denseformer import HDenseFormer
from .mdvit import MDViT
from .missu import MISSU
from .swin_unetr import SwinUNETR
from .u_net import UNet
from .unetr import UNETR
from .ux_net import UXNet

DEFAULT_IMAGE_SIZE = {2: (384, 384), 3: (144, 144, 144)}


@dataclass(frozen=True, kw_only=True)
class NetworkEntry:
    """A network as the two papers use it.

    Attributes:
        network: its class.
        role: ``teacher``, ``student`` or ``baseline``.
        arguments: constructor arguments per number of spatial dimensions; a missing number is not supported.
        published: millions of parameters and "GFLOPs" of Teach-Former's Table 1, per number of spatial dimensions;
            empty where the table does not have it.
        table1_arguments: what Table 1 counts beyond the default build.
    """

    network: type[SegmentationNetwork]
    role: str
    arguments: dict[int, dict[str, Any]]
    published: dict[int, tuple[float, float]] = field(default_factory=dict)
    table1_arguments: dict[str, Any] = field(default_factory=dict)


NETWORKS: dict[str, NetworkEntry] = {
    "h_denseformer": NetworkEntry(
        network=HDenseFormer,
        role="teacher",
        arguments={3: {"filters": 32}, 2: {"filters": 32}},
        published={3: (11.38, 960.38), 2: (4.98, 32.33)},
        table1_arguments={"deep_supervision": True},
    ),
    "swin_unetr": NetworkEntry(
        network=SwinUNETR,
        role="teacher",
        arguments={3: {"features": 24}, 2: {"features": 48}},
        published={3: (5.38, 280.91), 2: (11.04, 37.94)},
        table1_arguments={"keep_unused_stage": True},
    ),
    "unetr": NetworkEntry(
        network=UNETR,
        role="teacher",
        arguments={3: {}, 2: {}},
        published={3: (95.76, 282.18), 2: (87.51, 59.42)},
    ),
    "missu": NetworkEntry(
        network=MISSU,
        role="baseline",
        arguments={3: {}},
        published={3: (4.24, 154.38)},
    ),
    "mdvit": NetworkEntry(
        network=MDViT,
        role="baseline",
        arguments={2: {}},
        published={2: (30.30, 24.95)},
        table1_arguments={"auxiliary_branches": True},
    ),
    "h_denseformer_light": NetworkEntry(
        network=HDenseFormer,
        role="student",
        arguments={3: {"filters": 8}, 2: {"filters": 8}},
        published={3: (1.53, 62.73), 2: (1.25, 3.31)},
        table1_arguments={"deep_supervision": True},
    ),
    "swin_unetr_light": NetworkEntry(
        network=SwinUNETR,
        role="student",
        arguments={3: {"features": 12}, 2: {"features": 24}},
        published={3: (1.35, 75.68), 2: (2.76, 9.64)},
        table1_arguments={"keep_unused_stage": True},
    ),
    "ux_net": NetworkEntry(
        network=UXNet,
        role="student",
        arguments={3: {"widths": (6, 12, 24, 48)}, 2: {"widths": (24, 48, 96, 192)}},
        published={3: (5.12, 41.51), 2: (4.71, 20.27)},
    ),
    "unet": NetworkEntry(
        network=UNet,
        role="baseline",
        arguments={3: {"widths": (8, 16, 32, 64, 128)}, 2: {"widths": (12, 24, 48, 96, 192)}},
    ),
}


def build_network(
    name: str,
    *,
    in_channels: int,
    out_channels: int,
    spatial_dims: int = 3,
    image_size: Sequence[int] | None = None,
    table1: bool = False,
    **arguments: Any,
) -> SegmentationNetwork:
    """Builds a network by name.

    Args:
        name: a key of ``NETWORKS``.
        in_channels: image channels, 1 to 8.
        out_channels: classes, background included.
        spatial_dims: 2 or 3.
        image_size: the size it is built for; the paper's (144^3, 384^2) unless given.
        table1: exactly the published parameter count, with parts that are never used or trained.
        arguments: of the network's constructor, over the table's.

    Raises:
        ValueError: no such network, not in these dimensions, or an argument it does not take.
    """
    entry = NETWORKS.get(name)
    if entry is None:
        raise ValueError(f"There is no network '{name}': choose one of {', '.join(NETWORKS)}.")
    if spatial_dims not in entry.arguments:
        supported = " and ".join(f"{dims}D" for dims in entry.arguments)
        raise ValueError(f"The network '{name}' exists in {supported} only, not in {spatial_dims}D.")
    merged = entry.arguments[spatial_dims] | (entry.table1_arguments if table1 else {}) | arguments
    try:
        return entry.network(
            in_channels=in_channels,
            out_channels=out_channels,
            spatial_dims=spatial_dims,
            image_size=tuple(image_size or DEFAULT_IMAGE_SIZE[spatial_dims]),
            **merged,
        )
    except TypeError as error:
        raise ValueError(f"The network '{name}' does not take these arguments: {error}.") from error
