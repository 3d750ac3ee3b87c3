"""What must be installed before a model can compute, how large it is, and the installation itself.

Nothing is installed on import, at start-up or without a question, and Slicer's own packages stay as they are. A model
folder with an ONNX or OpenVINO graph needs no torch: that light way is offered first.
"""

import importlib.metadata
import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path

import slicer.util
from slicer.i18n import tr as _

# Slicer's own, and what other extensions rely on: an installation may not change them.
KEPT = ("numpy", "scipy", "SimpleITK", "requests", "pydicom", "vtk", "torch", "torchvision")
REQUIREMENTS = Path(__file__).parents[1] / "Resources" / "requirements.txt"


@dataclass(frozen=True)
class Package:
    """A package to install: what pip is told, the name to import, the download in words."""

    requirement: str
    module: str
    size: str

    @property
    def installed(self):
        return importlib.util.find_spec(self.module) is not None


def _required(name):
    """The line of requirements.txt for a package."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return next(line.strip() for line in lines if line.startswith(name))


TORCH = Package("torch", "torch", _("PyTorch, about 200 MB for the processor, 2 to 3 GB for an NVIDIA GPU"))
SAFETENSORS = Package(_required("safetensors"), "safetensors", _("safetensors, about 1 MB"))
ONNX = Package("onnxruntime>=1.18", "onnxruntime", _("ONNX Runtime, about 20 MB"))
OPENVINO = Package("openvino>=2024.4", "openvino", _("OpenVINO, about 50 MB"))
TRAINING = (
    Package("pytorch-lightning>=2.6.4", "pytorch_lightning", _("PyTorch Lightning, about 5 MB")),
    Package("jsonargparse[signatures]>=4.49", "jsonargparse", _("jsonargparse, about 1 MB")),
    Package("PyYAML>=6", "yaml", _("PyYAML, about 1 MB")),
)


class InstallationError(Exception):
    """The sentence says what failed and what to do."""


def light(model):
    """The runtime's package that serves a model without torch, or None: an installed one, else the smaller."""
    served = [package for name, package in (("onnx", ONNX), ("openvino", OPENVINO)) if model and model.has(name)]
    return next((package for package in served if package.installed), served[0] if served else None)


def missing(model):
    """The packages that must be installed before a model can compute, the light way where there is one."""
    needed = [SAFETENSORS]
    if not TORCH.installed:
        needed.append(light(model) or TORCH)
    return [package for package in needed if not package.installed]


def missingForTraining():
    """The packages that must be installed before anything can be trained."""
    return [package for package in (SAFETENSORS, TORCH, *TRAINING) if not package.installed]


def sentence(packages):
    """E.g. ``To compute, TeachFormer needs safetensors, about 1 MB; PyTorch, about ...``"""
    return _("To compute, TeachFormer needs: {packages}").format(packages="; ".join(p.size for p in packages))


def constraints(folder):
    """A constraints file with the versions that are installed of the packages that must stay."""
    lines = []
    for name in KEPT:
        try:
            # The part behind a + (torch 2.9.0+cpu) is a build that the index may not have.
            lines.append(f"{name}=={importlib.metadata.version(name).partition('+')[0]}")
        except importlib.metadata.PackageNotFoundError:
            continue
    file = Path(folder) / "constraints.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def install(packages, wheelFolder=None):
    """Installs the packages, in the main thread; the question was asked before.

    Args:
        wheelFolder: a folder of wheels, for machines without a network; nothing else is then asked for.

    Raises:
        InstallationError: what failed and what to do.
    """
    with tempfile.TemporaryDirectory(prefix="TeachFormer-") as folder:
        limits = str(constraints(folder))
        if wheelFolder:
            words = [package.requirement for package in packages]
            _pip([*words, "--no-index", "--find-links", str(wheelFolder), "--constraint", limits], packages)
        else:
            if TORCH in packages:
                _installTorch()
            rest = [package for package in packages if package is not TORCH]
            if rest:
                _installRest(rest, limits)
    importlib.invalidate_caches()
    left = [package.requirement for package in packages if not package.installed]
    if left:
        raise InstallationError(
            _("{names} did not arrive: restart Slicer and try again; the Python console tells what pip said.").format(
                names=", ".join(left)
            )
        )


def _installTorch():
    """Through the PyTorch extension, which finds the build for this machine's GPU."""
    try:
        import PyTorchUtils
    except ImportError as error:
        raise InstallationError(
            _("PyTorch is installed by the extension 'PyTorch', which is missing: install it with the Extensions "
              "Manager, restart Slicer and press Install again, or install from a folder of wheels.")
        ) from error  # fmt: skip
    try:
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=False)
    except Exception as error:
        raise InstallationError(_("PyTorch could not be installed ({error}).").format(error=error)) from error
    if torch is None:
        raise InstallationError(_("PyTorch could not be installed: the Python console tells what the extension said."))


def _installRest(packages, limits):
    words = [package.requirement for package in packages]
    try:
        from slicer.packaging import pip_ensure  # Slicer 5.12 and later
    except ImportError:
        _pip([*words, "--constraint", limits], packages)
        return
    try:
        # Whoever calls this wants the packages, also under Slicer's --testing, where pip_ensure would do nothing.
        pip_ensure(
            words, constraints=limits, prompt_install=False, prompt_restart=False, requester="TeachFormer",
            skip_in_testing=False,
        )  # fmt: skip
    except Exception as error:
        raise _failed(packages, error) from error


def _pip(words, packages):
    try:
        slicer.util.pip_install(words)
    except Exception as error:  # CalledProcessError, of whatever class Slicer raises
        raise _failed(packages, error) from error


def _failed(packages, error):
    return InstallationError(
        _("{names} could not be installed ({error}): check the network or the proxy, or install from a folder of "
          "wheels; the Python console tells what pip said.")
        .format(names=", ".join(package.requirement for package in packages), error=error)
    )  # fmt: skip
