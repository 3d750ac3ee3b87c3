"""Where runs, models and datasets are found; nothing is ever written into the checkout."""

import os
import sys
from pathlib import Path

from .errors import InputError

SHIPPED_MODELS = Path(__file__).parent / "models"
NOWHERE = Path(os.devnull)


def _home() -> Path:
    """The user's home, or `NOWHERE`, below which nothing is and nothing can be made: in a container one may have none.

    What is only looked for is absent then; what has to be kept is refused by `keepable`.
    """
    try:
        return Path.home()
    except RuntimeError:
        return NOWHERE


def keepable(folder: Path, variable: str) -> Path:
    """The folder, unless it would lie in the home of a user who has none.

    Args:
        variable: of the environment; names another folder.

    Raises:
        InputError: it would.
    """
    if folder.is_relative_to(NOWHERE):
        raise InputError(f"This user has no home folder to keep files in: set {variable} to a folder, or HOME.")
    return folder


def user_data_folder() -> Path:
    """The platform's folder for a program's data."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local") / "TeachFormer"
    if sys.platform == "darwin":
        return _home() / "Library" / "Application Support" / "TeachFormer"
    return Path(os.environ.get("XDG_DATA_HOME") or _home() / ".local" / "share") / "teachformer"


def user_cache_folder() -> Path:
    """``$TEACHFORMER_CACHE``, or the platform's folder for what a program can make again."""
    if named := os.environ.get("TEACHFORMER_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        return user_data_folder() / "Cache"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "TeachFormer"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "teachformer"


def runs_folder() -> Path:
    """``$TEACHFORMER_RUNS``, or ``runs`` in the user's data folder.

    Raises:
        InputError: there is neither.
    """
    return keepable(Path(os.environ.get("TEACHFORMER_RUNS") or user_data_folder() / "runs"), "TEACHFORMER_RUNS")


def user_models_folder() -> Path:
    """``$TEACHFORMER_MODELS``, or ``models`` in the user's data folder."""
    return Path(os.environ.get("TEACHFORMER_MODELS") or user_data_folder() / "models")


def data_folders() -> list[Path]:
    """Where datasets are looked up by name: ``$TEACHFORMER_DATA``, then ``../shared/data``."""
    named = os.environ.get("TEACHFORMER_DATA")
    return ([Path(named)] if named else []) + [Path("..") / "shared" / "data"]


def find_dataset(name: str | Path) -> Path:
    """The folder of a dataset given by path or by name.

    Raises:
        InputError: there is no such folder.
    """
    candidates = [Path(name), *(folder / name for folder in data_folders())]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate.resolve()
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise InputError(
        f"No dataset '{name}': looked for the folders {looked}. Give its path, or set TEACHFORMER_DATA to the folder "
        "that holds it."
    )
