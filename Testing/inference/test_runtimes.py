"""OpenVINO and ONNX Runtime give torch's masks, are chosen only if they do, and need no torch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import save_file

from TeachFormerCore.commands import main
from TeachFormerCore.data.image import voxels
from TeachFormerCore.data.phantom import thigh_phantom
from TeachFormerCore.errors import InputError, MissingDependencyError
from TeachFormerCore.evaluation.overlap import dice
from TeachFormerCore.inference import runtimes
from TeachFormerCore.inference.graphs import write_graphs
from TeachFormerCore.inference.model_folder import find_model, load_network, read_card, write_model
from TeachFormerCore.inference.predictor import Predictor
from TeachFormerCore.inference.runtimes import agreement, candidates, open_runtime, openvino_runtime, torch_runtime
from TeachFormerCore.inference.runtimes.agreement import Agreement, lowest_dice, telling_threshold
from TeachFormerCore.inference.runtimes.interface import Runtime, UnsuitableError
from TeachFormerCore.networks import build_network

REPOSITORY = Path(__file__).parents[2]
GRAPHS = ["openvino", "onnx"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small network of random weights that calls a third of the phantom tumour, with graphs for both."""
    root = tmp_path_factory.mktemp("graphs")
    arguments = {"filters": 4, "transformer_depth": 4}
    torch.manual_seed(0)
    network = build_network("h_denseformer_light", in_channels=2, out_channels=2, image_size=(32,) * 3, **arguments)
    card = read_card(find_model()) | {
        "name": "with_graphs",
        "network": {"name": "h_denseformer_light", "arguments": arguments},
        "image_size": [32, 32, 32],
        "spacing": [4.0, 4.0, 4.0],
    }
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(agreement.example(card))[None])
        network.head.bias[1] -= (logits[:, 1] - logits[:, 0]).quantile(2 / 3)
    save_file(network.state_dict(), root / "weights.safetensors")
    write_model(root / "plain", card, root / "weights.safetensors")
    (root / "files").mkdir()
    files = write_graphs(root / "plain", card, GRAPHS, root / "files")
    write_model(root / "model", card, root / "weights.safetensors", more=files)
    return root / "model"


@pytest.fixture(scope="module")
def images() -> dict[str, sitk.Image]:
    """The phantom around its tumour."""
    return {name: image[15:60, 15:60, 12:50] for name, image in thigh_phantom().images.items()}


@pytest.fixture(scope="module")
def expected(model: Path, images: dict[str, sitk.Image]) -> sitk.Image:
    return Predictor(model, device="cpu", runtime="torch").run(images).label


@pytest.mark.parametrize("runtime", GRAPHS)
def test_a_graph_gives_the_mask_and_the_maps_of_torch(
    model: Path, images: dict[str, sitk.Image], expected: sitk.Image, runtime: str
) -> None:
    predictor = Predictor(model, device="cpu", runtime=runtime)
    assert predictor.runtime.name == runtime
    prediction = predictor.run(images)
    value = dice(voxels(prediction.label) > 0, voxels(expected) > 0)
    assert value is not None
    assert value >= 0.999
    torch_maps = Predictor(model, device="cpu", runtime="torch").run(images).maps
    for name, atol in (("fine", 0.05), ("coarse", 0.05), ("probabilities", 0.1)):
        ours, theirs = getattr(prediction.maps, name), getattr(torch_maps, name)
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).mean() < atol * theirs.mean()


def test_graphs_return_logits_coarse_and_fine_of_any_number_of_windows(model: Path) -> None:
    card = read_card(model)
    window = torch.randn(2, 2, *card["image_size"], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = load_network(model, card).forward_with_attention(window)
    session = open_runtime(model, card, device="cpu", runtime="onnx").session
    assert [output.name for output in session.get_outputs()] == ["logits", "coarse", "fine"]
    for ours, theirs in zip(session.run(None, {"image": window.numpy()}), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-3 * float(theirs.abs().max()))


def test_auto_takes_the_first_that_agrees_and_asks_once(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEACHFORMER_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []

    def judge(runtime, folder, card) -> Agreement:
        asked.append(f"{runtime.name} {runtime.precision}")
        return Agreement(dice=0.9989 if runtime.name == "openvino" else 0.9991, seconds=1.0)

    monkeypatch.setattr(agreement, "measure_agreement", judge)
    card = read_card(model)
    chosen = open_runtime(model, card, device="cpu")
    assert chosen.name != "openvino"
    assert all(name.startswith("openvino") for name in asked[:-1])
    before = list(asked)
    assert open_runtime(model, card, device="cpu").name == chosen.name
    assert asked == before  # remembered, the refusals too
    with pytest.raises(InputError, match="Dice 0.9989 only, 0.999 is asked for"):
        open_runtime(model, card, device="cpu", runtime="openvino")
    changed = card | {"files": card["files"] | {"weights.safetensors": "0" * 64}}
    open_runtime(model, changed, device="cpu")
    assert len(asked) > len(before)  # other weights, asked again


def test_the_memory_belongs_to_weights_versions_processor_and_device(model: Path, monkeypatch) -> None:
    card = read_card(model)
    keys = [agreement.memory_key(card, name="onnx", device="cpu", precision="fp32")]
    keys.append(agreement.memory_key(card, name="openvino", device="cpu", precision="fp32"))
    keys.append(agreement.memory_key(card, name="onnx", device="cuda:0", precision="fp32"))
    keys.append(agreement.memory_key(card | {"files": {}}, name="onnx", device="cpu", precision="fp32"))
    monkeypatch.setattr(agreement, "cpu_name", lambda: "another processor")
    keys.append(agreement.memory_key(card, name="onnx", device="cpu", precision="fp32"))
    monkeypatch.setattr(agreement, "installed_version", lambda package: "99")
    keys.append(agreement.memory_key(card, name="onnx", device="cpu", precision="fp32"))
    assert len(set(keys)) == len(keys)


def test_seconds_measured_by_the_bench_decide_the_order(model: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEACHFORMER_CACHE", str(tmp_path / "cache"))
    card = read_card(model)
    assert next(candidates(card, device="cpu")).name == "openvino"
    seconds = {("onnx", "fp32"): 1.0, ("torch", "fp32"): 3.0, ("openvino", "fp32"): 2.0}
    for (name, precision), taken in seconds.items():
        key = agreement.memory_key(card, name=name, device="cpu", precision=precision)
        agreement.remember(key, Agreement(dice=1.0, seconds=taken))
    order = [(one.name, one.precision) for one in candidates(card, device="cpu")]
    assert order[:3] == [("onnx", "fp32"), ("openvino", "fp32"), ("torch", "fp32")]


def test_a_cache_that_cannot_be_written_or_read_is_no_error(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEACHFORMER_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    agreement.remember("key", Agreement(dice=1.0, seconds=1.0))
    assert agreement.remembered("key") is None
    monkeypatch.setenv("TEACHFORMER_CACHE", str(tmp_path))
    (tmp_path / "agreement").mkdir()
    (tmp_path / "agreement" / "key.json").write_text('{"dice": "torn')
    assert agreement.remembered("key") is None


def test_a_compiled_graph_that_was_changed_is_made_anew(model: Path, monkeypatch, tmp_path: Path) -> None:
    """Regression: OpenVINO read a blob with a page of zeros without a word, and gave other masks."""
    monkeypatch.setenv("TEACHFORMER_CACHE", str(tmp_path))
    card = read_card(model)
    image = agreement.example(card)[None]

    def logits() -> np.ndarray:
        return np.array(openvino_runtime.open_runtime(model, card, "cpu", "fp32")(image)[0])

    expected = logits()
    (blob,) = (tmp_path / "openvino").rglob("*.blob")
    sound = blob.read_bytes()
    np.testing.assert_array_equal(logits(), expected)
    assert blob.read_bytes() == sound  # taken, not made anew
    half = len(sound) // 2
    blob.write_bytes(sound[:half] + bytes(4096) + sound[half + 4096 :])
    np.testing.assert_array_equal(logits(), expected)
    assert blob.read_bytes() != sound[:half] + bytes(4096) + sound[half + 4096 :]


def test_what_cannot_serve_is_said(tiny_model: Path, model: Path, monkeypatch) -> None:
    card = read_card(tiny_model)
    with pytest.raises(InputError, match="has no OpenVINO graph: make a copy") as told:
        open_runtime(tiny_model, card, device="cpu", runtime="openvino")
    assert str(told.value).count("no OpenVINO graph") == 1, "for bf16 and for fp32"
    assert f"teachformer export --model {tiny_model} --runtime openvino" in str(told.value)
    with pytest.raises(InputError, match="has no ONNX graph"):
        open_runtime(tiny_model, card, device="cpu", runtime="onnx")
    with pytest.raises(InputError, match="OpenVINO does not offer intel:7"):
        open_runtime(model, read_card(model), device="intel:7", runtime="openvino")
    with pytest.raises(InputError, match="runtime torch does not serve the device intel"):
        open_runtime(model, read_card(model), device="intel", runtime="torch")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="'onnxruntime' is not installed"):
        open_runtime(model, read_card(model), device="cpu", runtime="onnx")


def test_a_graph_that_fails_is_left_for_the_next(model: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEACHFORMER_CACHE", str(tmp_path))

    def fail(*arguments: object) -> None:
        raise RuntimeError("Check 'false' failed: no such primitive")

    monkeypatch.setattr(openvino_runtime, "open_runtime", fail)
    monkeypatch.setattr(agreement, "measure_agreement", lambda *given: Agreement(dice=1.0, seconds=1.0))
    assert open_runtime(model, read_card(model), device="cpu").name != "openvino"


@pytest.mark.parametrize("damaged", ["model.onnx", "openvino/model.xml", "reference.safetensors"])
def test_a_damaged_graph_is_left_for_torch_or_refused(model: Path, monkeypatch, tmp_path: Path, damaged: str) -> None:
    """Each library has errors of its own for a file that is none, here of a card whose hashes agree."""
    monkeypatch.setenv("TEACHFORMER_CACHE", str(tmp_path / "cache"))
    bad = Path(shutil.copytree(model, tmp_path / "bad"))
    card = read_card(bad)
    for name in card["files"]:
        if name in (damaged, "openvino/model.xml" if damaged == "model.onnx" else ""):
            (bad / name).write_bytes(b"no graph at all")
    if damaged != "model.onnx":
        (bad / "model.onnx").write_bytes(b"nor is this")
    assert open_runtime(bad, card, device="cpu").name == "torch"
    runtime = "openvino" if damaged == "openvino/model.xml" else "onnx"
    with pytest.raises(InputError, match=rf"{runtime} fp32 on cpu failed \("):
        open_runtime(bad, card, device="cpu", runtime=runtime)


def test_a_gpu_that_is_passed_over_is_told_of(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(runtimes, "gpu_is_possible", lambda: False)
    assert Predictor(tiny_model).notices == ()
    monkeypatch.setattr(runtimes, "gpu_is_possible", lambda: True)
    (notice,) = Predictor(tiny_model).notices
    assert notice == "The GPU is not used, it is computed on the CPU: no operation ran on it, see its driver."
    assert Predictor(tiny_model, device="cpu").notices == ()


def test_a_gpu_too_full_to_hold_the_network_is_left_for_the_cpu(tiny_model: Path, monkeypatch) -> None:
    opened = torch_runtime.open_runtime

    def full(folder: Path, card: dict, device: str, precision: str) -> Runtime:
        if device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return opened(folder, card, device, precision)

    monkeypatch.setattr(torch_runtime, "open_runtime", full)
    monkeypatch.setattr(runtimes, "gpu_is_possible", lambda: True)
    monkeypatch.setattr(runtimes, "choose_device", lambda name: torch.device("cuda"))
    predictor = Predictor(tiny_model)
    assert predictor.device == "cpu"
    assert "torch bf16 on cuda failed (CUDA out of memory." in predictor.notices[0]


def test_lowest_dice_and_threshold_by_hand() -> None:
    assert lowest_dice(np.array([0, 1, 1, 2]), np.array([0, 1, 1, 2])) == 1.0
    assert lowest_dice(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == pytest.approx(2 / 3)
    assert lowest_dice(np.array([0, 0]), np.array([0, 1])) == 0.0
    body = np.ones(1000, bool)
    assert telling_threshold(np.linspace(-1, 1, 1000), body=body) == 0.0  # finds something: its own decision
    low, high = np.linspace(-9, -8, 700), np.linspace(-3, -2, 300)
    assert -8 < telling_threshold(np.concatenate([low, high]), body=body) < -3


def test_bfloat16_is_refused_where_it_is_not_native(tiny_model: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch_runtime, "has_fast_bf16", lambda device: False)
    with pytest.raises(UnsuitableError, match="no native bfloat16"):
        torch_runtime.open_runtime(tiny_model, read_card(tiny_model), "cpu", "bf16")
    assert open_runtime(tiny_model, read_card(tiny_model), device="cpu").precision == "fp32"


WITHOUT_TORCH = """
import sys
for name in ("torch", "monai", "scipy", {blocked!r}):
    sys.modules[name] = None
from TeachFormerCore.commands import main
code = main(sys.argv[1:])
assert sys.modules["torch"] is None
raise SystemExit(code)
"""


@pytest.mark.parametrize(("runtime", "blocked"), [("openvino", "onnxruntime"), ("onnx", "openvino")])
def test_segment_needs_no_torch(
    model: Path, images: dict[str, sitk.Image], expected: sitk.Image, tmp_path: Path, runtime: str, blocked: str
) -> None:
    """One of the two is enough; nothing is written into the home folder (OpenVINO's telemetry would)."""
    for name, image in images.items():
        sitk.WriteImage(image, str(tmp_path / f"{name}.nrrd"))
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-c", WITHOUT_TORCH.format(blocked=blocked), "segment", "--model", model),
            *("--input", f"CT={tmp_path / 'CT.nrrd'}", "--input", f"PET={tmp_path / 'PET.nrrd'}"),
            *("--output", tmp_path / "mask.nrrd", "--uncertainty", tmp_path / "u.nrrd"),
            *("--attention-coarse", tmp_path / "c.nrrd", "--statistics", tmp_path / "s.json"),
        ],
        capture_output=True,
        encoding="utf-8",
        cwd=REPOSITORY,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(tmp_path / "home"),
            "TEACHFORMER_CACHE": str(tmp_path / "cache"),
        },
    )
    assert done.returncode == 0, done.stderr
    assert f"({runtime} " in done.stdout
    value = dice(voxels(sitk.ReadImage(str(tmp_path / "mask.nrrd"))) > 0, voxels(expected) > 0)
    assert value is not None
    assert value >= 0.999
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["labels"][0]["volume_ml"] > 1
    assert not (tmp_path / "home" / "intel").exists()


def test_a_model_with_a_graph_is_checked_and_imported_without_torch(model: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TEACHFORMER_MODELS": str(tmp_path / "models")}
    for action, told in (
        ("check", "hashes agree; PyTorch, which would try the weights, is not installed"),
        ("import", "Imported to "),
    ):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH.format(blocked="onnxruntime"), "models", action, model],
            capture_output=True, encoding="utf-8", env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert told in done.stdout
    assert [folder.name for folder in (tmp_path / "models").iterdir()] == [read_card(model)["name"]]


@pytest.mark.parametrize(("runtime", "blocked"), [("openvino", "onnxruntime"), ("onnx", "openvino")])
def test_the_shipped_model_needs_no_torch_either(tmp_path: Path, runtime: str, blocked: str) -> None:
    """Its one graph, ONNX's, serves both."""
    phantom = thigh_phantom()
    for name, image in phantom.images.items():
        sitk.WriteImage(image, str(tmp_path / f"{name}.nrrd"))
    words = [*("--input", f"CT={tmp_path / 'CT.nrrd'}", "--input", f"PET={tmp_path / 'PET.nrrd'}"), "--output"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.format(blocked=blocked), "segment", *words, tmp_path / "mask.nrrd"],
        capture_output=True, encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TEACHFORMER_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"({runtime} " in done.stdout
    value = dice(voxels(sitk.ReadImage(str(tmp_path / "mask.nrrd"))) > 0, voxels(phantom.label) > 0)
    assert value is not None
    assert value > 0.9


def test_without_torch_and_graphs_it_says_what_to_install(tiny_model: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", WITHOUT_TORCH.format(blocked="onnxruntime"), "segment", "--model", tiny_model),
            *("--input", f"CT={tmp_path / 'CT.nrrd'}", "--output", tmp_path / "mask.nrrd"),
            *("--input", f"PET={tmp_path / 'CT.nrrd'}"),
        ],
        capture_output=True,
        encoding="utf-8",
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TEACHFORMER_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode in (2, 3)  # the missing file is told first, or PyTorch
    assert "Traceback" not in done.stderr


def test_a_model_is_copied_with_graphs(tiny_model: Path, images: dict[str, sitk.Image], tmp_path: Path, capsys) -> None:
    """What a user of a model without its run needs to compute without PyTorch."""
    before = (tiny_model / "model.json").read_bytes()
    assert main(["export", "--model", str(tiny_model), "--runtime", "onnx"]) == 0
    copy = find_model("tiny_graphs")
    assert str(copy) in capsys.readouterr().out
    card, original = read_card(copy), read_card(tiny_model)
    assert card | {"name": "", "files": {}} == original | {"name": "", "files": {}}
    assert card["files"]["weights.safetensors"] == original["files"]["weights.safetensors"]
    assert {"model.onnx", agreement.REFERENCE} < set(card["files"])
    assert (tiny_model / "model.json").read_bytes() == before
    by_torch = Predictor(tiny_model, device="cpu", runtime="torch").run(images)
    prediction = Predictor(copy, device="cpu", runtime="onnx").run(images)
    assert lowest_dice(voxels(prediction.label), voxels(by_torch.label)) >= 0.999
    for wrong in ([], ["--runtime", "magic"], ["--runtime", "onnx", "--described", "words.json"]):
        assert main(["export", "--model", str(tiny_model), *wrong]) == 2


def test_two_processes_on_one_model_folder_do_not_disturb_each_other(
    model: Path, images: dict[str, sitk.Image], tmp_path: Path
) -> None:
    """Both begin at the same time with an empty cache, in which both want to compile and to remember."""
    for name, image in images.items():
        sitk.WriteImage(image, str(tmp_path / f"{name}.nrrd"))
    cases = [("torch", 0), ("openvino", 1), ("openvino", 2), ("auto", 3)]
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    inputs = [word for name in images for word in ("--input", f"{name}={tmp_path / f'{name}.nrrd'}")]
    processes = []
    for runtime, number in cases:
        command = [sys.executable, "-m", "TeachFormerCore", "segment", "--model", model, "--runtime", runtime, *inputs]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TEACHFORMER_CACHE": str(tmp_path / "cache")}
        processes.append(
            subprocess.Popen(
                [*command, "--output", tmp_path / f"{number}.nrrd", "--statistics", tmp_path / f"{number}.json"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                env=environment,
            )
        )
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    masks = [voxels(sitk.ReadImage(str(tmp_path / f"{number}.nrrd"))) for _runtime, number in cases]
    assert masks[0].any()
    np.testing.assert_array_equal(masks[1], masks[2])
    assert all(lowest_dice(mask, masks[0]) >= 0.999 for mask in masks[1:])
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    assert not [path for path in (tmp_path / "cache" / "agreement").iterdir() if path.suffix != ".json"]


def test_two_runs_and_a_second_predictor_give_identical_masks(model: Path, images: dict[str, sitk.Image]) -> None:
    for runtime in ("torch", "openvino", "onnx"):
        predictor = Predictor(model, device="cpu", runtime=runtime)
        first, second = predictor.run(images), predictor.run(images)
        again = Predictor(model, device="cpu", runtime=runtime).run(images)
        for other in (second, again):
            np.testing.assert_array_equal(voxels(first.label), voxels(other.label))
            np.testing.assert_array_equal(first.maps.probabilities, other.maps.probabilities)


@pytest.mark.full
@pytest.mark.parametrize(("runtime", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_an_environment_without_torch(
    model: Path, images: dict[str, sitk.Image], sources: Path, tmp_path: Path, runtime: str, package: str
) -> None:
    """A fresh environment with numpy, SimpleITK, safetensors and one runtime."""
    import venv

    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "-c", REPOSITORY / "constraints.txt"]
    subprocess.run([*install, "numpy", "SimpleITK", "safetensors", package], check=True, timeout=600)
    subprocess.run([*install, "--no-deps", sources], check=True, timeout=300)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    for name, image in images.items():
        sitk.WriteImage(image, str(tmp_path / f"{name}.nrrd"))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [
            *(environment / "bin" / "teachformer", "segment", "--model", model, "--output", tmp_path / "mask.nrrd"),
            *("--input", f"CT={tmp_path / 'CT.nrrd'}", "--input", f"PET={tmp_path / 'PET.nrrd'}"),
        ],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=clean | {"HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert f"({runtime} " in done.stdout
    assert voxels(sitk.ReadImage(str(tmp_path / "mask.nrrd"))).sum() > 0
    assert not (tmp_path / "intel").exists()
