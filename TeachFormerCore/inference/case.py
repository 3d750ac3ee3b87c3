"""One case from its files to its results, as ``teachformer segment`` and Slicer's worker have it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .outputs import Outputs

if TYPE_CHECKING:
    from .cancellation import Cancellation
    from .predictor import Predictor

FOURTH = "channel4"

OnStage = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case.

    Attributes:
        inputs: ``NAME=path`` each, see `name_channels`.
        region_ras: ``CX,CY,CZ,RX,RY,RZ`` in mm, or None for the whole image.
    """

    inputs: tuple[str, ...]
    outputs: Outputs
    model: str | None = None
    region_ras: str | None = None
    pet_units: str = "suv"
    suv_factor: float | None = None
    device: str = "auto"
    runtime: str = "auto"


def segment_case(
    job: Job,
    cancellation: "Cancellation",
    *,
    result_file: Path | None = None,
    on_stage: OnStage = lambda part, words: None,
) -> dict[str, Any]:
    """Segments one case in this process; every output appears, or none.

    Args:
        result_file: JSON with what is returned; appears together with the outputs.
        on_stage: told the part that is done, 0..1, and what comes next, or "".

    Returns:
        {exit_code, model, version, device, runtime, notices, outputs {name: path}, seconds}.

    Raises:
        TeachFormerError: and its kinds, see `read_inputs` and `Predictor.run`.
    """
    start = time.monotonic()
    # The names of what the user gave are judged before torch is imported, which takes seconds.
    from .inputs import match_inputs, read_inputs
    from .model_folder import find_model, read_card
    from .region import parse_region

    region = parse_region(job.region_ras) if job.region_ras else None
    card = read_card(find_model(job.model))
    pairs = name_channels(job.inputs, card)
    read = match_inputs(pairs, card).values()
    job.outputs.check([*read, result_file] if result_file else read)
    on_stage(0.05, "Reading images and loading the model")
    with ThreadPoolExecutor(max_workers=1) as pool:  # at the same time
        loading = pool.submit(_load, job)
        inputs = read_inputs(pairs, card, job.pet_units, job.suv_factor)
        predictor = loading.result()
    from .results import write_results

    on_stage(0.1, f"Segmenting with {card['name']} on {predictor.device}")
    prediction = predictor.run(
        inputs.images,
        region=region,
        on_progress=lambda part: on_stage(0.1 + 0.8 * part, ""),
        on_plan=lambda plan: on_stage(0.1, f"The case {plan}"),
    )
    on_stage(0.9, "Writing")
    with cancellation.new_files() as files:
        write_results(files, prediction, job.outputs, inputs=inputs, card=card)
        result = {
            "exit_code": 0,
            "model": card["name"],
            "version": card["version"],
            "device": str(predictor.device),
            "runtime": f"{predictor.runtime.name} {predictor.runtime.precision}",
            "notices": list(prediction.notices),
            "outputs": {name: str(path) for name, path in job.outputs.given().items()},
            "seconds": time.monotonic() - start,
        }
        if result_file:
            files.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", result_file)
    return result


def _load(job: Job) -> "Predictor":
    from .predictor import Predictor

    return Predictor(job.model, device=job.device, runtime=job.runtime)


def name_channels(pairs: Sequence[str], card: Mapping[str, Any]) -> list[str]:
    """The pairs with the slots of Slicer's module replaced by the card's channel names.

    ``channel4`` is the model's fourth channel. A modality (CT, PET, MR) is the channel of that modality among the first
    three, so that a model with two MR channels can be served; where that is not one channel, ``match_inputs`` decides.

    Raises:
        InputError: ``channel4`` for a model with fewer channels.
    """
    names = [channel["name"] for channel in card["channels"]]
    known = {name.lower() for name in names}
    result = []
    for pair in pairs:
        slot, _, path = pair.partition("=")
        if slot == FOURTH and FOURTH not in known:
            if len(names) < 4:
                raise InputError(
                    f"The model {card['name']} has no fourth channel, only {', '.join(names)}: leave {FOURTH} empty."
                )
            slot = names[3]
        elif slot.lower() not in known:
            fitting = [channel["name"] for channel in card["channels"][:3] if channel["modality"] == slot.upper()]
            slot = fitting[0] if len(fitting) == 1 else slot
        result.append(f"{slot}={path}")
    return result
