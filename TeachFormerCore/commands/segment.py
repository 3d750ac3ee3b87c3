"""``teachformer segment``: one case, from image files to a mask and its maps."""

import argparse
from pathlib import Path

PERCENT = 100
SIGNED_OPTIONS = ("--region-ras",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The contract's options."""
    parser.add_argument("--model", help="name or folder of a model (default: the shipped student)")
    parser.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="CHANNEL=FILE",
        help="an image, or the folder of a DICOM series, once per channel; the first channel of the model is the "
        "reference whose grid the results have",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help="the mask (.nii.gz, .nii, .nrrd, .mha, or .seg.nrrd with names, colours and codes)",
    )
    parser.add_argument("--attention-fine", type=Path, metavar="FILE", help="where the last decoder layer looks, 0..1")
    parser.add_argument("--attention-coarse", type=Path, metavar="FILE", help="where the deep encoder looks, 0..1")
    parser.add_argument(
        "--attention-gradcam",
        type=Path,
        metavar="FILE",
        help="Grad-CAM of the last decoder layer, 0..1",
    )
    parser.add_argument("--uncertainty", type=Path, metavar="FILE", help="normalised entropy, 0..1")
    parser.add_argument("--probabilities", type=Path, metavar="FILE", help="one component per class, background first")
    parser.add_argument(
        "--statistics", type=Path, metavar="FILE.json", help="volumes, values and SUV figures per label"
    )
    parser.add_argument(
        "--region-ras", metavar="CX,CY,CZ,RX,RY,RZ", help="box to compute in: centre and half-size in mm, RAS"
    )
    parser.add_argument("--pet-units", choices=("suv", "bqml"), default="suv", help="of a PET that is no DICOM series")
    parser.add_argument("--suv-factor", type=float, metavar="F", help="SUV per Bq/mL, for --pet-units bqml")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps, intel:N")
    parser.add_argument("--runtime", default="auto", help="auto, torch, openvino or onnx")


def run(arguments: argparse.Namespace) -> int:
    """Segments the case; every output appears, or none."""
    from ..inference.cancellation import Cancellation
    from ..inference.case import Job, segment_case
    from ..inference.outputs import Outputs
    from ..progress import Progress

    outputs = Outputs(
        label=arguments.output,
        attention_fine=arguments.attention_fine,
        attention_coarse=arguments.attention_coarse,
        attention_gradcam=arguments.attention_gradcam,
        uncertainty=arguments.uncertainty,
        probabilities=arguments.probabilities,
        statistics=arguments.statistics,
    )
    job = Job(
        inputs=tuple(arguments.input),
        outputs=outputs,
        model=arguments.model,
        region_ras=arguments.region_ras,
        pet_units=arguments.pet_units,
        suv_factor=arguments.suv_factor,
        device=arguments.device,
        runtime=arguments.runtime,
    )
    farewell = "teachformer: error: cancelled\n"
    with Cancellation(farewell=farewell) as cancellation, Progress(PERCENT, "segmenting, per cent") as progress:

        def tell(part: float, words: str) -> None:
            if words:
                progress.close()
                print(words, flush=True)
            progress.advance(int(PERCENT * part) - progress.done)

        result = segment_case(job, cancellation, on_stage=tell)
    for notice in result["notices"]:
        print(notice)
    print(f"{arguments.output}: {result['model']} {result['version']} on {result['device']} ({result['runtime']})")
    return 0
