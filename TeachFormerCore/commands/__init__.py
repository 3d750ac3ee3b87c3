"""The command line: one module per command, loaded only when it is called.

A command's module has ``add_arguments(parser)`` and ``run(arguments) -> exit code``; one whose options come from a
typed configuration has ``parse(argv)`` instead of the first. ``SIGNED_OPTIONS`` names options whose value may begin
with a minus.
"""

# Nothing here that takes time: until `main` runs, a signal ends the process as the system has it.
import importlib
import signal
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import EXIT_CANCELLED, TeachFormerError, as_teachformer_error

COMMANDS = {
    "segment": "segment one case with a trained model",
    "batch": "segment many cases, resumed, in shards or on a cluster",
    "evaluate": "score a model on a dataset, beside simple baselines",
    "models": "list, check, import and remove model folders",
    "demo": "segment a synthetic phantom and, where the data is, a real case",
    "data": "convert, check, look at, split and prepare datasets",
    "networks": "the networks of the two papers with their sizes, measured",
    "train": "train one network",
    "distill": "train a student from frozen teachers",
    "crossval": "train the arms of a cross-validation as independent jobs",
    "reproduce": "train a finished run again and compare the weights",
    "report": "tables, statistics and figures from finished runs",
    "export": "make a model folder of a finished run",
    "bench": "time and memory, end to end and by stage, per runtime",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; its exit code: 0 done, 1 some failed, 2 input, 3 install, 4 internal, 130 cancelled."""
    try:
        # SIGTERM as Ctrl+C: files and processes are left in order, and the exit code says why.
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # only the main thread is told of signals
        return _main(argv)
    try:
        return _main(argv)
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


def _main(argv: Sequence[str] | None) -> int:
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return _fail("cancelled", EXIT_CANCELLED)
    except BrokenPipeError:  # the reader of our output has closed it, e.g. `| head`
        sys.stderr.close()
        return EXIT_CANCELLED
    except Exception as error:
        told = as_teachformer_error(error)
        if told.exit_code == TeachFormerError.exit_code and told is not error:
            import traceback

            traceback.print_exc()
        return _fail(str(told), told.exit_code)


def _run(argv: Sequence[str]) -> int:
    import argparse

    if not argv or argv[0] not in COMMANDS:
        return _without_command(argv)
    command, options = argv[0], argv[1:]
    module = importlib.import_module(f".{command}", __name__)
    if hasattr(module, "parse"):
        return module.run(module.parse(options))
    description = COMMANDS[command]
    parser = argparse.ArgumentParser(
        prog=f"teachformer {command}", description=f"{description[0].upper()}{description[1:]}."
    )
    module.add_arguments(parser)
    return module.run(parser.parse_args(_joined(options, getattr(module, "SIGNED_OPTIONS", ()))))


def _joined(options: Sequence[str], signed: Sequence[str]) -> list[str]:
    """``--flag -1,2`` as ``--flag=-1,2``: argparse would take a value that begins with a minus for another flag."""
    joined: list[str] = []
    for word in options:
        if joined and joined[-1] in signed:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _without_command(argv: Sequence[str]) -> int:
    import argparse

    listing = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="teachformer",
        usage="teachformer COMMAND ... (teachformer COMMAND --help tells more)",
        description="Light segmentation networks distilled from transformer teachers, for CT, PET and MR.",
        epilog=f"commands:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"teachformer {__version__}")
    unknown = [word for word in argv if not word.startswith("-")]
    if unknown:
        parser.error(f"there is no command '{unknown[0]}': choose one of {', '.join(COMMANDS)}")
    parser.parse_args(argv)
    parser.print_help(sys.stderr)
    return 2


def _fail(message: str, code: int) -> int:
    print(f"teachformer: error: {message}", file=sys.stderr)
    return code
