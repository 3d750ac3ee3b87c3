"""Trains a network alone, such as a teacher: ``teachformer train`` for plain Python and for Slicer's.

python Training/train_teacher.py --config FILE [--KEY VALUE ...]
Slicer --no-splash --no-main-window --python-script Training/train_teacher.py -- --config FILE
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from TeachFormerCore.commands import main

if __name__ == "__main__":
    sys.exit(main(["train", *(word for word in sys.argv[1:] if word != "--")]))
