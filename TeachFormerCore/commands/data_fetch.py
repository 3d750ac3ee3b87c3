"""``teachformer data fetch``: the public sample case, checksum-verified."""

import argparse
from pathlib import Path
from typing import Any

NAMES = ("sts014",)


def add_fetch(commands: Any) -> None:
    """The parser of ``data fetch``."""
    text = "fetch a public sample case, checksum-verified"
    parser = commands.add_parser(
        "fetch", help=text, description=f"{text[0].upper()}{text[1:]}; resumes where it was cut off."
    )
    parser.set_defaults(run_data=run_fetch)
    parser.add_argument("name", choices=NAMES, metavar="NAME", help="sts014: a sarcoma in CT, PET and MR, CC BY 3.0")
    parser.add_argument("destination", metavar="DST", type=Path, help="the folder to put it in")
    parser.add_argument(
        "--source", type=Path, metavar="DIR", help="a folder that holds the files, instead of the network"
    )


def run_fetch(arguments: argparse.Namespace) -> int:
    """``data fetch``: 0 when every file is there with the right checksum."""
    from ..data.fetch import SAMPLES, fetch

    sample = SAMPLES[arguments.name]
    fetched = fetch(sample, arguments.destination, source=arguments.source)
    there = len(sample.files) - len(fetched)
    print(f"{arguments.destination}: {len(fetched)} files fetched, {there} were there; {sample.attribution.strip()}")
    return 0
