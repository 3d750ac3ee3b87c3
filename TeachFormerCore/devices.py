"""Which device computes, and in which precision: one answer for training and inference."""

from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch

    from .networks import SegmentationNetwork


def choose_device(name: str = "auto") -> "torch.device":
    """The device by name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    A GPU is taken only after a small real operation ran on it, since a driver may list a card it cannot serve.

    Raises:
        InputError: the device is unknown or does not work here.
    """
    import torch

    if name == "auto":
        for candidate in ("cuda", "mps"):
            if _works(candidate):
                return torch.device(candidate)
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"There is no device '{name}': use auto, cpu, cuda, cuda:0 or mps.") from error
    if device.type != "cpu" and not _works(name):
        raise InputError(f"The device '{name}' does not work on this machine: use --device auto or --device cpu.")
    return device


def _works(name: str) -> bool:
    import torch

    available = torch.cuda.is_available() if name.startswith("cuda") else torch.backends.mps.is_available()
    if not available:
        return False
    try:
        probe = torch.ones(1, 1, 4, 4, 4, device=name)
        return bool(torch.nn.functional.conv3d(probe, probe).item() == 64.0)
    except Exception:  # whatever a broken driver raises
        return False


def has_fast_bf16(device: "torch.device") -> bool:
    """Whether bfloat16 is native: GPUs from Ampere on, processors with AVX512-BF16 or AMX.

    Elsewhere PyTorch emulates it, which is slower than float32 (1.7 times for S1 on a processor with AVX512 only).
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return False


def prefer_layout(network: "SegmentationNetwork", device: "torch.device") -> "SegmentationNetwork":
    """The network with its weights in the memory layout that is fastest on the device.

    Channels-last makes 3D convolutions on processors half again as fast (S1, forward and backward: 1.75 s instead of
    2.5 s); on GPUs instance normalisation has no such kernel and loses more than that.
    """
    import torch

    if device.type == "cpu" and network.spatial_dims == 3:
        for parameter in network.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return network
