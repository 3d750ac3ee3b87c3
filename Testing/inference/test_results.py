"""The results of a case: written side by side, no more at a time than the memory is for, all of them or none."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.image import OutputFiles, voxels
from TeachFormerCore.data.phantom import thigh_phantom
from TeachFormerCore.errors import InputError
from TeachFormerCore.inference import results
from TeachFormerCore.inference.inputs import Inputs
from TeachFormerCore.inference.outputs import SMALL_IMAGE, Outputs, writing_threads
from TeachFormerCore.inference.predictor import Prediction, Predictor
from TeachFormerCore.inference.results import CancellableFiles, write_results

Case = tuple[Prediction, Inputs, dict]


@pytest.fixture(scope="module")
def case(shared_model: Path) -> Case:
    predictor = Predictor(shared_model, device="cpu", runtime="torch")
    images = {name: image[20:52, 20:52, 14:46] for name, image in thigh_phantom().images.items()}
    inputs = Inputs(images=images, pet_units="as given (SUV)", reference="ct.nii.gz")
    return predictor.run(images), inputs, predictor.card


def every_output(folder: Path) -> Outputs:
    images = ("label", "attention_fine", "attention_coarse", "attention_gradcam", "uncertainty", "probabilities")
    return Outputs(statistics=folder / "statistics.json", **{name: folder / f"{name}.nii.gz" for name in images})


class Watched(OutputFiles):
    """Files that tell how many are written at a time, and can fail at one of them."""

    def __init__(self, failing: str = "") -> None:
        super().__init__()
        self.failing, self.now, self.most, self.lock = failing, 0, 0, threading.Lock()

    def write_image(self, image: sitk.Image, path: Path) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.1)
        try:
            if path.name.startswith(self.failing or "-"):
                raise InputError(f"{path} could not be written.")
            super().write_image(image, path)
        finally:
            with self.lock:
                self.now -= 1


@pytest.mark.parametrize("threads", [1, 2])
def test_so_many_files_are_written_at_a_time(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    prediction, inputs, card = case
    monkeypatch.setattr(results, "writing_threads", lambda voxels: threads)
    with Watched() as files:
        told = write_results(files, prediction, every_output(tmp_path), inputs=inputs, card=card)
        assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")], "it appeared too early"
    assert files.most == threads
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in every_output(tmp_path).given().values()}
    assert told["labels"][0]["voxels"] == voxels(prediction.label).sum()
    for name in ("label", "attention_fine", "attention_coarse", "uncertainty"):
        written = sitk.ReadImage(str(tmp_path / f"{name}.nii.gz"))
        np.testing.assert_array_equal(voxels(written), voxels(getattr(prediction, name)))
        assert written.GetSize() == prediction.label.GetSize()
    both = voxels(sitk.ReadImage(str(tmp_path / "probabilities.nii.gz")))
    for number, probability in enumerate(prediction.probabilities):
        np.testing.assert_array_equal(both[..., number], voxels(probability))


@pytest.mark.parametrize("failing", ["label", "attention_coarse", "probabilities", "uncertainty"])
def test_where_one_cannot_be_written_none_appears(case: Case, tmp_path: Path, failing: str) -> None:
    prediction, inputs, card = case
    with pytest.raises(InputError, match=f"{failing}.nii.gz could not be written"), Watched(failing) as files:
        write_results(files, prediction, every_output(tmp_path), inputs=inputs, card=card)
    assert list(tmp_path.iterdir()) == []
    assert files.now == 0, "a thread was still writing"


def test_the_maps_of_a_large_image_are_written_one_at_a_time() -> None:
    assert writing_threads(512 * 512 * 300) == 2
    assert writing_threads(SMALL_IMAGE) == 2
    assert writing_threads(512 * 512 * 600) == 1


ENDLESS = """
import sys
from pathlib import Path
import numpy as np
import SimpleITK as sitk
from TeachFormerCore.inference.cancellation import Cancellation
from TeachFormerCore.inference.results import _Writers
noise = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(150, 150, 150)).astype(np.float32))
with Cancellation() as cancellation:
    with cancellation.new_files() as files, _Writers(files, noise.GetNumberOfPixels()) as writers:
        for number in range(1000):
            writers.write(lambda: noise, Path(sys.argv[1]) / f"{number}.nii.gz")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_signal_while_two_files_are_written_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for wanted in (1, 2, 4):
        with subprocess.Popen([sys.executable, "-c", ENDLESS, tmp_path], env=environment) as process:
            end = time.monotonic() + 60
            while len(list(tmp_path.iterdir())) < wanted and process.poll() is None and time.monotonic() < end:
                time.sleep(0.001)
            assert process.poll() is None
            told = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 130
            assert time.monotonic() - told < 2
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_about_to_be_written_is_taken_back_too(tmp_path: Path) -> None:
    """Between the name and its writing: the image library would make the file anew."""
    files = CancellableFiles()
    temporary = files.temporary(tmp_path / "a.nrrd")
    assert files.take_back()
    with pytest.raises(RuntimeError):
        sitk.WriteImage(sitk.Image(2, 2, 2, sitk.sitkUInt8), str(temporary))
    assert list(tmp_path.iterdir()) == []
