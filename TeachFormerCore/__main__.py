"""``python -m TeachFormerCore`` is the program ``teachformer``."""

import sys

from .commands import main

sys.exit(main())
