"""``teachformer segment``: one case, from image files to a mask and its maps."""

import argparse
from pathlib import Path

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
    parser.add_argument("--output", required=True, type=Path, help="the mask (.nii.gz, .nii, .nrrd, .mha)")
    parser.add_argument("--attention-fine", type=Path, metavar="FILE", help="where the last decoder layer looks, 0..1")
    parser.add_argument("--attention-coarse", type=Path, metavar="FILE", help="where the deep encoder looks, 0..1")
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
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--runtime", default="auto", help="auto or torch")


def run(arguments: argparse.Namespace) -> int:
    """Segments the case; every output appears, or none."""
    from ..data.image import OutputFiles
    from ..inference.inputs import read_inputs
    from ..inference.outputs import Outputs
    from ..inference.predictor import Predictor
    from ..inference.region import parse_region
    from ..inference.results import write_results

    outputs = Outputs(
        label=arguments.output,
        attention_fine=arguments.attention_fine,
        attention_coarse=arguments.attention_coarse,
        uncertainty=arguments.uncertainty,
        probabilities=arguments.probabilities,
        statistics=arguments.statistics,
    )
    outputs.check(arguments.input)
    region = parse_region(arguments.region_ras) if arguments.region_ras else None
    predictor = Predictor(arguments.model, device=arguments.device, runtime=arguments.runtime)
    inputs = read_inputs(arguments.input, predictor.card, arguments.pet_units, arguments.suv_factor)
    prediction = predictor.run(inputs.images, region=region)
    for notice in prediction.notices:
        print(notice)
    with OutputFiles() as files:
        write_results(files, prediction, outputs, inputs=inputs, card=predictor.card)
    print(f"{arguments.output}: {predictor.card['name']} {predictor.card['version']} on {predictor.device}")
    return 0
