"""A typed configuration from a YAML file and overrides, through jsonargparse."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import missing_dependency
from .config import TrainConfig


def parse_config(command: str, argv: Sequence[str]) -> TrainConfig:
    """The configuration of a call; prints help or configuration and exits where asked to.

    A relative ``splits`` is looked up in the current folder, then beside the configuration file and above it.

    Raises:
        InputError: the configuration cannot be used.
        MissingDependencyError: jsonargparse is not installed.
    """
    try:
        from jsonargparse import ArgumentParser
    except ModuleNotFoundError as error:
        raise missing_dependency("jsonargparse", extra="train", purpose="read a configuration") from error

    parser = ArgumentParser(prog=f"teachformer {command}", description="Any key of the configuration is an option.")
    parser.add_argument("--config", action="config", help="YAML file with the keys below")
    parser.add_class_arguments(TrainConfig)
    parsed = parser.parse_args(list(argv))
    folders = [Path(str(file)).absolute().parent for file in parsed.config or []]
    config: TrainConfig = _config_of(parser.instantiate(parsed))
    if config.splits is None or Path(config.splits).is_file():
        return config
    above = [each for folder in folders for each in (folder, *folder.parents)]
    found = next((folder / config.splits for folder in above if (folder / config.splits).is_file()), None)
    return replace(config, splits=str(found)) if found else config


def _config_of(parsed: object) -> TrainConfig:
    values = dict(vars(parsed))
    values.pop("config", None)
    return TrainConfig(**values)
