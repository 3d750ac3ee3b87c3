"""Sample Data: one real case with a checksum per file, and a synthetic one that needs no network."""

import tempfile
import time
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from .core import find_core

CATEGORY = "TeachFormer"
# The files of the real case -> node name and reader.
NODES = {
    "CT_image.nii.gz": ("STS_014 CT", "VolumeFile"),
    "PET_image.nii.gz": ("STS_014 PET", "VolumeFile"),
    "MR_T1_image.nii.gz": ("STS_014 MR T1", "VolumeFile"),
    "CT_mask.nii.gz": ("STS_014 tumour", "SegmentationFile"),
}
PHANTOM_TIMEOUT_S = 120
SARCOMA_NAME, PHANTOM_NAME = "Sarcoma CT, PET, MR (STS_014)", "Phantom CT, PET (no network)"


def register(iconFolder):
    """Registers both; called once the application has started."""
    import SampleData

    if find_core() is None:
        return  # the panel says so
    from TeachFormerCore.data.fetch import SAMPLES

    sample = SAMPLES["sts014"]
    icon = str(Path(iconFolder) / "TeachFormer.png")
    add = SampleData.SampleDataLogic.registerCustomSampleDataSource
    add(
        category=CATEGORY,
        sampleName=SARCOMA_NAME,
        thumbnailFileName=icon,
        uris=[f"{sample.url}/{file}" for file in NODES],
        fileNames=[f"STS_014_{file}" for file in NODES],
        nodeNames=[name for name, _reader in NODES.values()],
        checksums=[f"SHA256:{sample.files[file]}" for file in NODES],
        loadFileType=[reader for _name, reader in NODES.values()],
    )
    # Sample Data wants an address and file names, also where a function makes the data.
    add(
        category=CATEGORY,
        sampleName=PHANTOM_NAME,
        thumbnailFileName=icon,
        uris="",
        fileNames="TeachFormerPhantom",
        nodeNames="Phantom",
        customDownloader=loadPhantom,
    )


def loadPhantom(_source=None):
    """The phantom's CT and PET as volume nodes; the window stays alive meanwhile.

    Raises:
        RuntimeError: it took too long or could not be computed; with the process's words.
    """
    from .background import BackgroundCommand

    with tempfile.TemporaryDirectory(prefix="TeachFormer-") as folder:
        command = BackgroundCommand("phantom", folder)
        end = time.monotonic() + PHANTOM_TIMEOUT_S
        while command.running and time.monotonic() < end:
            command.poll()
            slicer.app.processEvents()
            time.sleep(0.02)
        late = command.running
        command.close()
        if late:
            told = _("The phantom took longer than {seconds} s: close other programs and try again.")
            raise RuntimeError("\n".join([told.format(seconds=PHANTOM_TIMEOUT_S), *command.log]))
        if command.failure:
            raise RuntimeError(f"{command.failure.sentence}\n{command.failure.original}")
        return [
            slicer.util.loadVolume(str(Path(folder) / f"{name}.nrrd"), {"name": f"Phantom {name}"})
            for name in ("CT", "PET")
        ]
