"""How every script here starts its command: from plain Python and inside Slicer, without a dialog, with its exit code.

python Training/X.py --config FILE [--KEY VALUE ...]
Slicer --no-splash --no-main-window --python-script Training/X.py -- --config FILE [--KEY VALUE ...]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def launch(command: str) -> None:
    """Runs ``teachformer COMMAND`` with this script's options and ends the process with its exit code.

    Slicer would stay open: it is told to exit. A package that is missing is named, with exit code 3.
    """
    from TeachFormerCore.commands import main

    try:
        # Slicer leaves the "--" that keeps its own options from ours.
        code = main([command, *(word for word in sys.argv[1:] if word != "--")])
    except SystemExit as ended:  # --help, or an option that does not exist
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    # Slicer has imported its module before it starts a script; elsewhere the name may belong to another package.
    slicer = sys.modules.get("slicer")
    leave = slicer.util.exit if slicer is not None else sys.exit
    leave(code)
