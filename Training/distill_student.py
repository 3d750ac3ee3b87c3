"""Trains a student from the runs of its teachers: ``teachformer distill`` for plain Python and for Slicer's.

python Training/distill_student.py --config FILE [--KEY VALUE ...]
Slicer --no-splash --no-main-window --python-script Training/distill_student.py -- --config FILE
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from TeachFormerCore.commands import main

if __name__ == "__main__":
    sys.exit(main(["distill", *(word for word in sys.argv[1:] if word != "--")]))
