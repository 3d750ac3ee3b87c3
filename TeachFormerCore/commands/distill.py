"""``teachformer distill``: a student from frozen teachers, one typed configuration; the same run resumes."""

import argparse
from collections.abc import Sequence

from .train import run as run


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """As ``train``, with at least one teacher."""
    from ..errors import InputError
    from ..training.command_line import parse_config

    config = parse_config("distill", argv)
    if not config.teachers:
        raise InputError("The configuration names no teachers: give 'teachers: [{run: NAME}]', or use 'train'.")
    return argparse.Namespace(config=config)
