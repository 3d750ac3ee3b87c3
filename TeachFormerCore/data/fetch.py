"""The one public case that TeachFormer can fetch: checksum-verified, resumed where it was cut off, or from a mirror."""

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import sha256_of
from ..progress import Progress

CHUNK = 1 << 18
TIMEOUT_S = 30.0
ATTRIBUTION_FILE = "ATTRIBUTION.txt"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Files of a public case.

    Attributes:
        url: the folder they lie in, without a slash at its end.
        files: name -> sha256.
        attribution: what the licence asks to be kept with them.
    """

    url: str
    files: Mapping[str, str]
    attribution: str


SAMPLES = {
    "sts014": Sample(
        url="https://github.com/theibsi/data_sets/raw/6da96021bc91faf4c0cb7fd7fa56a4225d2064a8/"
        "ibsi_validation/nifti/STS_014",
        files={
            "CT_image.nii.gz": "838037e3c2eb24414ab746d98634ed9b7a568c608bdcfc39495c4a49c944d04b",
            "PET_image.nii.gz": "9f6d168572f8c065f6d2a39beef442e31613be27ccb47e9997c82609eb92d959",
            "MR_T1_image.nii.gz": "8b26a0358e24020d2dbd3c1607ef821c9b8434cd96cafced0be2589120961284",
            "CT_mask.nii.gz": "e50a7b598e0db7d01a542d91fc812bfd7121ec7e7f2c52ba7a7aed36403c8536",
        },
        attribution="STS_014: a soft-tissue sarcoma in CT, FDG-PET and T1 MR with the gross tumour volume, from the "
        "IBSI validation set, itself from the collection Soft-tissue-Sarcoma (Vallières et al.), DOI "
        "10.7937/K9/TCIA.2015.7GO2GSKS and 10.1088/0031-9155/60/14/5471. Licence: CC BY 3.0.\n",
    )
}


def fetch(sample: Sample, destination: str | Path, *, source: str | Path | None = None) -> list[Path]:
    """Brings a sample's files into a folder; those that are there and right are left alone.

    A file has its name only once its checksum is right. What a broken download left behind is gone on with.

    Args:
        sample: one of `SAMPLES`.
        destination: the folder, made where it is missing.
        source: a folder that holds the files, instead of the network.

    Returns:
        The files fetched now.

    Raises:
        InputError: no network, no such file, a wrong checksum, or another file of that name in the folder.
    """
    destination = Path(destination)
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {destination} cannot be made ({error.strerror}).") from error
    fetched = []
    for name, checksum in sample.files.items():
        path = destination / name
        if path.exists():
            if sha256_of(path) != checksum:
                raise InputError(f"{path} exists with another content: remove it, or give another folder.")
            continue
        part = destination / f".{name}.part"
        if source is not None:
            _copy(Path(source) / name, part)
        else:
            _download(f"{sample.url}/{name}", part)
        found = sha256_of(part)
        if found != checksum:
            part.unlink()
            origin = f"{sample.url}/{name}" if source is None else str(Path(source) / name)
            raise InputError(
                f"{origin} is not the file that was registered (sha256 {found}, expected {checksum}): it was changed "
                "or damaged on its way; run the command again, or get it from elsewhere."
            )
        os.replace(part, path)
        fetched.append(path)
    (destination / ATTRIBUTION_FILE).write_text(sample.attribution, encoding="utf-8")
    return fetched


def _copy(source: Path, part: Path) -> None:
    if not source.is_file():
        raise InputError(f"{source} does not exist: --source must be a folder that holds {source.name}.")
    try:
        shutil.copyfile(source, part)
    except OSError as error:
        raise InputError(f"{source} could not be copied to {part.parent} ({error.strerror}).") from error


def _download(url: str, part: Path) -> None:
    """Fetches what a part file lacks; the whole where the server knows no ranges."""
    held = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={held}-"} if held else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            resumed = response.status == 206
            missing = int(response.headers.get("Content-Length") or 0)
            with (
                part.open("ab" if resumed else "wb") as file,
                Progress(missing // 1000, f"fetching {part.name[1:-5]} (kB)") as progress,
            ):
                _pour(response.read, file.write, progress)
            if part.stat().st_size < missing + held * resumed:
                raise ConnectionError("the connection ended early")
    except urllib.error.HTTPError as error:
        if error.code == 416 and held:  # nothing is missing: the checksum decides
            return
        raise InputError(f"{url} could not be fetched (HTTP {error.code} {error.reason}).") from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"{url} could not be fetched ({reason}): check the network and run the command again, it goes on where it "
            "was; or give a folder that holds the files with --source."
        ) from error


def _pour(read: Callable[[int], bytes], write: Callable[[bytes], object], progress: Progress) -> None:
    done = 0
    while chunk := read(CHUNK):
        write(chunk)
        progress.advance((done + len(chunk)) // 1000 - done // 1000)
        done += len(chunk)
