"""Where TeachFormerCore is: beside the installed module in Slicer, or in the source tree."""

import importlib.util
import sys
from pathlib import Path


def find_core():
    """Makes TeachFormerCore importable and answers the folder that holds it, or None."""
    spec = importlib.util.find_spec("TeachFormerCore")
    if spec is not None and spec.origin:
        return Path(spec.origin).parents[1]
    here = Path(__file__).resolve()
    # Installed, TeachFormerLib lies beside TeachFormerCore; in the source tree in TeachFormerSlicer/TeachFormer.
    for folder in (here.parents[1], here.parents[3]):
        if (folder / "TeachFormerCore" / "__init__.py").is_file():
            sys.path.append(str(folder))
            return folder
    return None
