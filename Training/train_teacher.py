"""Trains a network alone, such as a teacher: ``teachformer train``; launch.py says how it is started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from launch import launch

if __name__ == "__main__":
    launch("train")
