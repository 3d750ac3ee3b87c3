"""TeachFormer: light segmentation networks distilled from transformer teachers.

The rooms: ``networks`` (one network per file), ``data`` (images, datasets, preparation), ``distillation`` (losses and
tasks), ``training`` (loops), ``inference`` (predictor), ``evaluation`` (metrics, pictures), ``commands`` (the command
line). Importing the package loads none of them.
"""

__version__ = "0.1.0"
