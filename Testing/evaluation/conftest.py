"""A cross-validation of known quality, with two runs that are not finished, for the tests of its report."""

import shutil
from pathlib import Path

import pytest
from studies import FOLDS, MISSING, PATIENTS, write_prepared, write_study


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", PATIENTS, empty=["P7"])


@pytest.fixture(scope="module")
def study_folder(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("runs") / "cv", prepared, FOLDS, missing=MISSING)


@pytest.fixture
def own(study_folder: Path, tmp_path: Path) -> Path:
    """A copy of the runs, to be damaged."""
    return Path(shutil.copytree(study_folder, tmp_path / "cv"))
