"""Stand-ins for the parts of 3D Slicer that no package brings: the application, its Qt binding, its widgets.

They are our own and prove the module against our reading of Slicer 5.8 to 5.12, not against Slicer; that is what
``Testing/slicer/in_slicer.py`` and the module's own test are for. The MRML classes and ``slicer.util`` are the real
ones, of the package ``slicer-core``.
"""
