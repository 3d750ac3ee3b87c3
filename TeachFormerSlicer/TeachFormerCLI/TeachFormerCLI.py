#!/usr/bin/env python-real
"""TeachFormer's command line module in 3D Slicer: flags in, one case or a batch segmented, progress and exit code out.

The work is done by ``TeachFormerCore.inference.worker``.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

SWITCHES = ("--resume",)  # flags without a value
INPUTS = {"ct": "CT", "pet": "PET", "mr": "MR", "channel4": "channel4"}
RESULTS = ("attentionFine", "attentionCoarse", "attentionGradCAM", "uncertainty", "statistics")
ONE_CASE = (*INPUTS, "region", *RESULTS)  # what a batch has per case, in its table and its folder
USAGE, NOT_INSTALLED = 2, 3  # exit codes, needed before TeachFormerCore is found


class Parser(argparse.ArgumentParser):
    """Faults of the call go to stdout: Slicer shows stderr as if the program had crashed."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}", flush=True)
        raise SystemExit(USAGE)


def make_parser() -> Parser:
    """The flags of TeachFormerCLI.xml; Slicer omits those that are empty."""
    parser = Parser(
        prog="TeachFormerCLI", description="Segments one case, or a batch, with a trained model.", allow_abbrev=False
    )
    parser.add_argument("output", nargs="?", type=Path, help="the label image to write; empty after a batch")
    parser.add_argument("--model", help="name or folder of a model (default: the shipped student)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--runtime", default="auto", help="auto, torch, openvino or onnx")
    parser.add_argument("--ct", help="CT in HU")
    parser.add_argument("--pet", help="PET in SUV (body weight)")
    parser.add_argument("--mr", help="MR")
    parser.add_argument("--channel4", help="the model's fourth channel, where it has one")
    parser.add_argument("--region", help="box to compute in: centre and half-size in mm, RAS, six numbers")
    parser.add_argument("--attentionFine", type=Path, help="where the last decoder layer looks, 0..1")
    parser.add_argument("--attentionCoarse", type=Path, help="where the deep encoder looks, 0..1")
    parser.add_argument("--attentionGradCAM", type=Path, help="Grad-CAM of the last decoder layer, 0..1")
    parser.add_argument("--uncertainty", type=Path, help="normalised entropy, 0..1")
    parser.add_argument("--statistics", type=Path, help="volumes, values and SUV figures per label, JSON")
    parser.add_argument(
        "--batchInput", type=Path, help="a table (CSV) or folder of cases, in place of one case's images"
    )
    parser.add_argument("--batchOutput", type=Path, help="the folder for the results of a batch")
    parser.add_argument("--resume", action="store_true", help="go on with a batch")
    parser.add_argument("--returnparameterfile", help=argparse.SUPPRESS)  # Slicer may add it; nothing is returned so
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The call's values; an empty one counts as not given."""
    parser = make_parser()
    joined: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("--") or "=" in word or word in ("--", "--help", *SWITCHES):
            joined.append(word)
            continue
        # Each flag takes a value, and argparse would take that of "--region -12.5,30,..." for another flag.
        value = next(rest, None)
        if value is None:
            parser.error(f"{word} needs a value")
        if value:
            joined.append(f"{word}={value}")
    arguments = parser.parse_args(joined)
    # --batchOutput alone makes no batch: Slicer's window passes it always, as "." where no folder was chosen.
    if not arguments.batchInput:
        if not arguments.output:
            parser.error("the following arguments are required: output, or --batchInput for a batch")
        return arguments
    if not arguments.batchOutput:
        parser.error("a batch needs both --batchInput and --batchOutput")
    extra = [f"--{name}" for name in ONE_CASE if getattr(arguments, name)]
    if extra:
        parser.error(f"give either --batchInput or the images and maps of one case: leave out {', '.join(extra)}")
    return arguments


def find_core() -> bool:
    """Makes TeachFormerCore importable: installed, beside this module in Slicer, or in the source tree."""
    if importlib.util.find_spec("TeachFormerCore"):
        return True
    here = Path(__file__).resolve().parent
    # On Windows a build tree has one more folder, of the configuration.
    for folder in (here.parent / "qt-scripted-modules", here.parents[1] / "qt-scripted-modules", here.parents[1]):
        if (folder / "TeachFormerCore" / "__init__.py").is_file():
            sys.path.insert(0, str(folder))
            return True
    return False


def write_empty(label: Path) -> int:
    """One voxel of background: Slicer insists on an output volume also for a batch, and reads it at the end."""
    import SimpleITK as sitk

    from TeachFormerCore.data.image import OutputFiles, check_writable
    from TeachFormerCore.errors import InputError

    try:
        check_writable(label)
        with OutputFiles() as files:
            files.write_image(sitk.Image(1, 1, 1, sitk.sitkUInt8), label)
    except InputError as error:
        print(f"error: {error}", flush=True)
        return USAGE
    return 0


def main(words: Sequence[str]) -> int:
    """Segments one case or a batch; 0 done, 1 some cases failed, 2 input, 3 install, 4 internal, 130 cancelled."""
    arguments = parse(words)
    if not find_core():
        print("error: TeachFormerCore was not found beside this module: install the extension again.", flush=True)
        return NOT_INSTALLED
    from TeachFormerCore.inference.outputs import Outputs
    from TeachFormerCore.inference.worker import BatchJob, Job, run_cases, run_segmentation

    values = vars(arguments)
    chosen = {name: values[name] for name in ("model", "device", "runtime")}
    if arguments.batchInput:
        folder = arguments.batchOutput.resolve()
        code = run_cases(BatchJob(source=arguments.batchInput, output=folder, resume=arguments.resume, **chosen))
        return write_empty(arguments.output) if code == 0 and arguments.output else code
    return run_segmentation(
        Job(
            inputs=tuple(f"{name}={values[flag]}" for flag, name in INPUTS.items() if values[flag]),
            outputs=Outputs(
                label=arguments.output,
                attention_fine=arguments.attentionFine,
                attention_coarse=arguments.attentionCoarse,
                attention_gradcam=arguments.attentionGradCAM,
                uncertainty=arguments.uncertainty,
                statistics=arguments.statistics,
            ),
            region_ras=arguments.region,
            **chosen,
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
