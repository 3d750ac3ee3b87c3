"""Which device computes, and in which precision: one answer for training and inference."""

import ctypes
import functools
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch

    from .networks import SegmentationNetwork


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that works here.

    Attributes:
        name: what ``--device`` takes: ``cpu``, ``cuda:0``, ``mps``.
        description: what people call it.
        free_bytes: memory that is free now; None where the system does not tell.
    """

    name: str
    description: str
    free_bytes: int | None


def available_devices(on_refused: Callable[[str], None] = lambda why: None) -> list[Device]:
    """Every GPU on which a small real operation ran, then the processor; without PyTorch the processor only.

    Args:
        on_refused: told of a PyTorch that cannot be imported, and of each GPU that is listed and does not work.
    """
    found = []
    try:
        import torch
    except ModuleNotFoundError:
        pass
    except Exception as error:  # whatever a broken installation raises
        on_refused(f"PyTorch does not work ({type(error).__name__}: {error}): install it again.")
    else:
        names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            names.append("mps")
        for name in names:
            try:
                device = choose_device(name)
            except InputError as error:
                on_refused(str(error))
                continue
            description = device_name(device) if name != "mps" else "Apple GPU"
            found.append(Device(name=name, description=description, free_bytes=free_memory(name)))
    return [*found, Device(name="cpu", description=cpu_name(), free_bytes=free_memory("cpu"))]


@functools.cache
def gpu_is_possible() -> bool:
    """False where it is certain, without the seconds that importing PyTorch takes, that PyTorch has no GPU here."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return False
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if "rocm" in version:
        return True
    if version.endswith("+cpu"):
        return False
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return False
    return not failed and count.value > 0


@functools.cache
def cpu_name() -> str:
    """The processor's model and number of cores, e.g. ``AMD EPYC 9354, 8 cores``."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    cores = usable_cores()
    return f"{model}, {cores} core{'s' if cores > 1 else ''}"


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(device: str) -> int | None:
    """Bytes that are free on a device (for the processor: in the machine, or its container), where that is told."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    if device == "mps":
        import torch

        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if sys.platform == "win32":
        return _free_memory_of_windows()
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:  # a container's own limit; what it has read from files can be given up
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        read = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        return min(free, max(0, limit - used + int(read.get("inactive_file", 0))))
    except (OSError, ValueError):
        return free


def _free_memory_of_windows() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong) for name in ("total", "free", "total_page", "free_page", "a", "b", "c")
        ]

    status = Status(length=ctypes.sizeof(Status))
    done = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.free) if done else None


def peak_memory() -> int | None:
    """Bytes: the largest memory of this process so far, or None where the system does not tell."""
    try:
        # Linux hands what getrusage tells on from a parent to the program it starts.
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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


def device_name(device: "torch.device") -> str:
    """What the device is called, for people and to compare times."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


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


def computes_in_bf16(precision: str, device: "torch.device") -> bool:
    """Whether a network computes in bfloat16: ``bf16`` always, ``auto`` where that is fast, ``fp32`` never."""
    return precision == "bf16" or (precision == "auto" and has_fast_bf16(device))


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
