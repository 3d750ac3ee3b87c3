"""Trains the arms of a cross-validation: ``teachformer crossval``; launch.py says how it is started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from launch import launch

if __name__ == "__main__":
    launch("crossval")
