"""A typed configuration from a YAML file and overrides, through jsonargparse."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import InputError, missing_dependency
from .config import TrainConfig


def parse_config(command: str, argv: Sequence[str]) -> TrainConfig:
    """The configuration of a call; prints help or configuration and exits where asked to.

    A relative ``splits`` is looked up in the current folder, then beside the configuration file and above it.

    Raises:
        InputError: the configuration cannot be used.
        MissingDependencyError: jsonargparse is not installed.
    """
    parser = new_parser(prog=f"teachformer {command}", description="Any key of the configuration is an option.")
    try:
        values = dict(vars(parser.instantiate(parser.parse_args(list(argv)))))
    except Exception as error:  # what the parser does not foresee, e.g. a file that is no text
        raise InputError(f"The configuration cannot be used: {' '.join(str(error).split())[:300]}.") from error
    files = values.pop("config", None)
    return found_splits(TrainConfig(**values), files)


def new_parser(**options: Any) -> Any:
    """A parser of ``--config`` and of every key of a training's configuration.

    Raises:
        MissingDependencyError: jsonargparse is not installed.
    """
    try:
        from jsonargparse import ArgumentParser
    except ModuleNotFoundError as error:
        raise missing_dependency("jsonargparse", extra="train", purpose="read a configuration") from error

    parser = ArgumentParser(**options)
    parser.add_argument("--config", action="config", help="YAML file with the keys below")
    parser.add_class_arguments(TrainConfig)
    return parser


def config_from(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration of plain values, checked as those of a file are.

    Raises:
        InputError: a key there is not, or a value that cannot be used.
    """
    from jsonargparse import ArgumentError

    parser = _plain_parser()
    try:
        parsed = vars(parser.instantiate(parser.parse_object(dict(values))))
    except ArgumentError as error:
        raise InputError(f"The configuration cannot be used: {' '.join(str(error).split())}.") from error
    return TrainConfig(**{name: value for name, value in parsed.items() if name != "config"})


@cache
def _plain_parser() -> Any:
    """Made once: it reads every docstring of the configuration."""
    return new_parser(exit_on_error=False)


def found_splits(config: TrainConfig, files: Sequence[Any] | None) -> TrainConfig:
    """The configuration with a relative ``splits`` looked up in the current folder, then beside its files and above."""
    if config.splits is None or Path(config.splits).is_file():
        return config
    folders = [Path(str(file)).absolute().parent for file in files or []]
    above = [each for folder in folders for each in (folder, *folder.parents)]
    found = next((folder / config.splits for folder in above if (folder / config.splits).is_file()), None)
    return replace(config, splits=str(found)) if found else config
