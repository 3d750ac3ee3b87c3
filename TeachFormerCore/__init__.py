"""TeachFormer: light segmentation networks distilled from transformer teachers.

The rooms: ``networks`` (one network per file), ``data`` (images, datasets, preparation), ``distillation`` (losses and
tasks), ``training`` (loops), ``inference`` (predictor), ``evaluation`` (metrics, pictures), ``commands`` (the command
line). Importing the package loads none of them.
"""

import sys as _sys

__version__ = "0.1.0"

if _sys.version_info < (3, 10):  # noqa: UP036 - 3D Slicer 5.8
    from . import _python39

    _python39.install()
