"""What the module TeachFormer is made of.

Qt-free (MRML, NumPy and the standard library): everything in this folder but ``widget.py`` and ``panels/``. Nothing
here imports torch: what computes is a process of its own, see ``launch.py`` and ``runner.py``.
"""
