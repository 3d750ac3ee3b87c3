"""``teachformer batch`` as a program: files, state, resume, shards, kills, and Slicer's module with the same core."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.commands import main
from TeachFormerCore.data.image import OutputFiles
from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.batch import shard_of
from TeachFormerCore.inference.batch_state import DONE, FAILED, BatchState, Record, read_states, state_file
from TeachFormerCore.inference.batch_summary import write_summary
from TeachFormerCore.inference.manifest import BatchCase

REPOSITORY = Path(__file__).parents[2]
CLI_MODULE = REPOSITORY / "TeachFormerSlicer" / "TeachFormerCLI" / "TeachFormerCLI.py"
GOOD = ("a", "b", "c")


def write_case(folder: Path, name: str, seed: int, size: int = 24) -> None:
    """A CT and a PET that the tiny model takes, in nnU-Net's names."""
    random = np.random.default_rng(seed)
    values = {"0000": random.normal(-400, 300, (size, size, size)), "0001": random.gamma(2, 1.5, (size, size, size))}
    for number, array in values.items():
        image = sitk.GetImageFromArray(array.astype(np.float32))
        image.SetSpacing((4.0, 4.0, 4.0))
        sitk.WriteImage(image, str(folder / f"{name}_{number}.nii.gz"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good cases and, between them, a broken one and one without its PET."""
    folder = tmp_path_factory.mktemp("Fälle 1")
    for seed, name in enumerate(GOOD):
        write_case(folder, name, seed)
    write_case(folder, "aa broken", 7)
    (folder / "aa broken_0001.nii.gz").write_bytes(b"no image")
    write_case(folder, "ab half", 8)
    (folder / "ab half_0001.nii.gz").unlink()
    return folder


def batch(*words: object) -> int:
    return main(["batch", *map(str, words)])


def states(folder: Path, name: str = "state.jsonl") -> dict[str, str]:
    lines = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    return {line["case"]: line["state"] for line in lines if "case" in line}


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in sorted(folder.glob("*.nii.gz"))}


@pytest.fixture(scope="module")
def model(shared_model: Path) -> Path:
    return shared_model


@pytest.fixture(scope="module")
def done(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished batch."""
    folder = tmp_path_factory.mktemp("out") / "Ergebnisse ö"
    assert batch("--model", model, "--input", images, "--output", folder, "--runtime", "torch") == 1
    return folder


def test_a_broken_case_never_stops_the_others(done: Path) -> None:
    assert states(done) == {"a": DONE, "aa broken": FAILED, "ab half": FAILED, "b": DONE, "c": DONE}
    files = {path.name for path in done.iterdir()}
    assert files == {"state.jsonl", "summary.csv", "summary.json"} | {
        f"{name}{ending}" for name in GOOD for ending in (".nii.gz", ".json")
    }


def test_each_case_is_what_segment_gives(done: Path, model: Path, images: Path, tmp_path: Path) -> None:
    inputs = [
        word
        for name, number in (("CT", 0), ("PET", 1))
        for word in ("--input", f"{name}={images}/b_{number:04d}.nii.gz")
    ]
    outputs = ["--output", str(tmp_path / "b.nii.gz"), "--statistics", str(tmp_path / "b.json")]
    assert main(["segment", "--model", str(model), *inputs, *outputs, "--runtime", "torch"]) == 0
    np.testing.assert_array_equal(masks(done)["b.nii.gz"], masks(tmp_path)["b.nii.gz"])
    alone, together = (json.loads((folder / "b.json").read_text(encoding="utf-8")) for folder in (tmp_path, done))
    assert together == alone
    assert masks(done)["b.nii.gz"].any()


def test_the_summary_names_each_case_and_its_error(done: Path) -> None:
    summary = json.loads((done / "summary.json").read_text(encoding="utf-8"))
    assert [summary[key] for key in ("model", "version", "total", "done", "failed", "open")] == [
        "tiny",
        "1",
        5,
        3,
        2,
        0,
    ]
    entries = {entry["case"]: entry for entry in summary["cases"]}
    figures = json.loads((done / "c.json").read_text(encoding="utf-8"))["labels"][0]
    assert entries["c"]["labels"][0]["volume_ml"] == figures["volume_ml"]
    assert entries["c"]["labels"][0]["pet"] == figures["pet"]
    assert "aa broken_0001.nii.gz could not be read" in entries["aa broken"]["error"]["cause"]
    assert entries["aa broken"]["error"]["exit_code"] == 2
    assert "No image is given for PET" in entries["ab half"]["error"]["cause"]
    with (done / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert float(rows["c"]["suv_peak"]) == figures["pet"]["suv_peak"]
    assert (rows["c"]["state"], rows["c"]["label"]) == ("done", "GTV")
    assert rows["aa broken"]["state"] == "failed"
    assert rows["aa broken"]["fix"] == "export it again as NIfTI, NRRD or MHA."


def test_resume_does_what_is_left_and_nothing_else(
    done: Path, model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A torn last line, as a kill leaves it, and a result that somebody has removed."""
    call = ("--model", model, "--input", images, "--output", done, "--runtime", "torch")
    assert batch(*call) == 2
    assert "go on with --resume" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in done.glob("*.nii.gz")}
    old = masks(done)
    (done / "c.json").unlink()
    with (done / "state.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"case": "a", "state": "fai')
    assert batch(*call, "--resume") == 1
    assert "Done already: 2 of 5 cases." in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in done.glob("*.nii.gz")}
    assert {path.name for path in before if before[path] != after[path]} == {"c.nii.gz"}
    np.testing.assert_array_equal(masks(done)["c.nii.gz"], old["c.nii.gz"])
    assert read_states(done)[1]["a"].state == DONE
    assert json.loads((done / "summary.json").read_text(encoding="utf-8"))["done"] == 3


def test_a_case_that_is_asked_for_anew_is_done_anew(
    done: Path, model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row of the table is changed between two calls: its old mask would be another case's."""
    rows = {name: f"{name},{images / f'{name}_0000.nii.gz'},{images / f'{name}_0001.nii.gz'}," for name in GOOD}
    table = tmp_path / "cases.csv"
    call = ("--model", model, "--input", table, "--output", tmp_path / "out", "--runtime", "torch")
    table.write_text("\n".join(["case,CT,PET,region_ras", *rows.values()]), encoding="utf-8")
    assert batch(*call) == 0
    before = masks(tmp_path / "out")
    rows["b"] += '"-60,-60,60,30,30,30"'
    table.write_text("\n".join(["case,CT,PET,region_ras", *rows.values()]), encoding="utf-8")
    assert batch(*call, "--resume") == 0
    assert "Done already: 2 of 3 cases." in capsys.readouterr().out
    after = masks(tmp_path / "out")
    assert [name for name in before if (before[name] != after[name]).any()] == ["b.nii.gz"]


def test_a_case_that_is_asked_for_anew_and_fails_is_not_told_as_done(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor are its old results left, which nobody could tell from the others."""
    rows = {name: f"{name},{images / f'{name}_0000.nii.gz'},{images / f'{name}_0001.nii.gz'}" for name in GOOD}
    table, out = tmp_path / "cases.csv", tmp_path / "out"
    call = ("--model", model, "--input", table, "--output", out, "--runtime", "torch")

    def write_table() -> None:
        table.write_text("\n".join(["case,CT,PET", *rows.values()]), encoding="utf-8")

    def told() -> dict[str, tuple[str, int]]:
        cases = json.loads((out / "summary.json").read_text(encoding="utf-8"))["cases"]
        return {case["case"]: (case["state"], len(case["labels"])) for case in cases}

    write_table()
    assert batch(*call, "--shard", "1/2") == batch(*call, "--shard", "2/2") == 0
    assert told() == dict.fromkeys(GOOD, ("done", 1))
    right = rows["b"]
    rows["b"] = f"b,{images / 'none.nii.gz'},{images / 'b_0001.nii.gz'}"
    write_table()
    assert batch(*call, "--resume", "--shard", "1/2") == 0
    assert told() == {"a": ("done", 1), "b": ("open", 0), "c": ("done", 1)}, "another shard's, and still to do"
    assert batch(*call, "--resume") == 1
    assert told() == {"a": ("done", 1), "b": ("failed", 0), "c": ("done", 1)}
    assert {path.name for path in out.glob("[abc].*")} == {"a.json", "a.nii.gz", "c.json", "c.nii.gz"}
    rows["b"] = right
    write_table()
    for before in (2, 3):
        capsys.readouterr()
        assert batch(*call, "--resume") == 0
        assert f"Done already: {before} of 3 cases." in capsys.readouterr().out
    assert told() == dict.fromkeys(GOOD, ("done", 1))


def test_a_call_that_fails_before_the_first_case_has_begun_nothing(model: Path, images: Path, tmp_path: Path) -> None:
    call = ("--model", model, "--input", images, "--output", tmp_path / "out")
    assert batch(*call, "--device", "cuda:7") == 2
    assert not list((tmp_path / "out").iterdir())
    assert batch(*call, "--runtime", "torch") == 1, "some are broken"


def test_a_batch_of_another_model_is_not_gone_on_with(
    done: Path, images: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = (done / "state.jsonl").read_bytes()
    assert batch("--input", images, "--output", done, "--resume") == 2
    assert "begun with another model" in capsys.readouterr().err
    assert batch("--model", model, "--input", images, "--output", done, "--resume", "--pet-units", "bqml") == 2
    assert "begun with another PET units" in capsys.readouterr().err
    assert (done / "state.jsonl").read_bytes() == state


def test_shards_share_a_folder_and_a_summary(done: Path, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = ("--model", model, "--input", images, "--output", out, "--runtime", "torch")
    codes = [batch(*call, "--shard", f"{number}/2") for number in (1, 2)]
    assert codes == [1, 1]
    first, second = states(out, "state-1-of-2.jsonl"), states(out, "state-2-of-2.jsonl")
    assert list(first) == ["a", "ab half", "c"]
    assert list(second) == ["aa broken", "b"]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert [summary[key] for key in ("done", "failed", "open")] == [3, 2, 0]
    for name, mask in masks(out).items():
        np.testing.assert_array_equal(mask, masks(done)[name])
    assert batch(*call, "--shard", "2/2") == 2, "begun already"
    assert batch(*call) == 2, "by its shards"
    assert batch(*call, "--shard", "1/3") == 2, "some of its cases have results"


def test_results_among_the_cases_are_none_of_them(model: Path, images: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        for channel, number in (("CT", 0), ("PET", 1)):
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copyfile(images / f"{name}_{number:04d}.nii.gz", tmp_path / name / f"{channel}.nii.gz")
    out = tmp_path / "aa results"
    out.mkdir()
    call = ("--model", model, "--input", tmp_path, "--output", out, "--runtime", "torch")
    assert [batch(*call, "--shard", f"{number}/2") for number in (1, 2)] == [0, 0]
    assert states(out, "state-1-of-2.jsonl") == {"a": DONE}
    assert states(out, "state-2-of-2.jsonl") == {"b": DONE}


def test_shards_are_a_partition() -> None:
    cases = [BatchCase(name=str(number)) for number in range(11)]
    for n in (1, 2, 3, 11, 20):
        parts = [shard_of(cases, (i, n)) for i in range(1, n + 1)]
        assert sorted((case.name for part in parts for case in part), key=int) == [case.name for case in cases]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("words", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_bad_shard_is_refused(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        batch("--input", tmp_path, "--output", tmp_path / "out", f"--shard={words}")
    assert ended.value.code == 2
    assert "not of the form i/n" in capsys.readouterr().err


def test_a_table_gives_each_case_its_own_region(done: Path, model: Path, images: Path, tmp_path: Path) -> None:
    rows = ["case,CT,PET,region_ras,suv_factor"]
    for name, region, factor in (
        ("whole", "", ""),
        ("part", '"-50,-50,50,20,20,20"', ""),
        ("bad", "here", ""),
        ("odd", "", "x"),
    ):
        rows.append(f"{name},{images}/b_0000.nii.gz,{images}/b_0001.nii.gz,{region},{factor}")
    (tmp_path / "cases.csv").write_text("\n".join(rows), encoding="utf-8")
    out = tmp_path / "out"
    assert batch("--model", model, "--input", tmp_path / "cases.csv", "--output", out, "--runtime", "torch") == 1
    assert states(out) == {"bad": FAILED, "odd": FAILED, "part": DONE, "whole": DONE}
    found = masks(out)
    np.testing.assert_array_equal(found["whole.nii.gz"], masks(done)["b.nii.gz"])
    assert 0 < found["part.nii.gz"].any(axis=(1, 2)).sum() <= 11
    records = read_states(out)[1]
    assert "suv_factor 'x' must be a number" in records["odd"].error["cause"] + records["odd"].error["fix"]  # type: ignore[index]


def test_an_output_that_is_an_input_is_refused(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (0, 1):
        image = sitk.ReadImage(str(images / f"a_{number:04d}.nii.gz"))
        sitk.WriteImage(image, str(tmp_path / ("x.nii.gz" if number == 0 else "pet.nii.gz")))
    (tmp_path / "cases.csv").write_text("case,CT,PET\nx,x.nii.gz,pet.nii.gz\n", encoding="utf-8")
    before = (tmp_path / "x.nii.gz").read_bytes()
    call = ("--model", model, "--input", tmp_path / "cases.csv", "--output", tmp_path, "--runtime", "torch")
    for more in ((), ("--resume",)):
        assert batch(*call, *more) == 2
        assert "x.nii.gz of the case x would overwrite an image of the case x" in capsys.readouterr().err
        assert (tmp_path / "x.nii.gz").read_bytes() == before
        assert not list(tmp_path.glob("state*"))


def test_a_result_never_overwrites_an_image_of_another_case(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a link leads to it, and where it is another shard's."""
    out = tmp_path / "out"
    out.mkdir()
    image = out / "a.nii.gz"
    shutil.copyfile(images / "b_0000.nii.gz", image)
    (tmp_path / "link.nii.gz").symlink_to(image)
    rows = ["case,CT,PET", f"a,{images}/a_0000.nii.gz,{images}/a_0001.nii.gz", f"b,link.nii.gz,{images}/b_0001.nii.gz"]
    (tmp_path / "cases.csv").write_text("\n".join(rows), encoding="utf-8")
    before = image.read_bytes()
    call = ("--model", model, "--input", tmp_path / "cases.csv", "--output", out, "--runtime", "torch")
    assert batch(*call, "--resume", "--shard", "1/2") == 2
    assert "a.nii.gz of the case a would overwrite an image of the case b" in capsys.readouterr().err
    assert image.read_bytes() == before


@pytest.mark.parametrize("more", [(), ("--resume",)])
def test_files_of_no_batch_are_not_overwritten(
    more: tuple[str, ...], model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The masks that somebody has drawn may have the cases' names too."""
    (tmp_path / "b.nii.gz").write_bytes(b"drawn by hand")
    call = ("--model", model, "--input", images, "--output", tmp_path, "--runtime", "torch", *more)
    assert batch(*call) == 2
    assert "b.nii.gz exists already, and a result would overwrite it: give another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["b.nii.gz"]


def start(*words: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "TeachFormerCore", "batch", *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, f"it ended too early: {process.communicate()}"
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 130), pytest.param(signal.SIGINT, 130, marks=pytest.mark.full), (signal.SIGKILL, -9)],
    ids=["TERM", "INT", "KILL"],
)
def test_a_batch_that_is_stopped_goes_on_where_it_was(
    number: signal.Signals, code: int, model: Path, tmp_path: Path
) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    for seed in range(6):
        write_case(images, f"case {seed}", seed, size=40)
    call = ("--model", model, "--input", images, "--output", out, "--runtime", "torch")
    with start(*call) as process:
        wait_for(lambda: (out / "state.jsonl").is_file() and len(states_or_none(out)) >= 2, process)
        told = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        seconds = time.monotonic() - told
    assert process.returncode == code
    if number != signal.SIGKILL:
        assert seconds < 2
        assert said.endswith("teachformer: error: cancelled: go on with --resume\n")
        assert "Traceback" not in said
        assert not list(out.glob(".*"))
    finished = [name for name, state in states_or_none(out).items() if state == DONE]
    assert 2 <= len(finished) < 6
    for path in out.glob("case*.nii.gz"):
        assert sitk.ReadImage(str(path)).GetSize() == (40, 40, 40), "half a file"
    times = {name: (out / f"{name}.nii.gz").stat().st_mtime_ns for name in finished}
    assert batch(*call, "--resume") == 0
    assert set(states_or_none(out).values()) == {DONE}
    assert len(states_or_none(out)) == 6
    assert {name: (out / f"{name}.nii.gz").stat().st_mtime_ns for name in finished} == times
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["done"] == 6


def states_or_none(folder: Path) -> dict[str, str]:
    return {name: record.state for name, record in read_states(folder)[1].items()}


def test_slicers_module_runs_a_batch(done: Path, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        CLI_MODULE,
        "--model",
        model,
        "--runtime",
        "torch",
        "--batchInput",
        images,
        "--batchOutput",
        out,
    ]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)
    assert (ended.returncode, ended.stderr) == (1, ""), ended.stdout
    parts = [float(part) for part in re.findall("<filter-progress>(.*)</filter-progress>", ended.stdout)]
    assert parts == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert "error: aa broken: " in ended.stdout
    assert states(out) == states_or_none(done)
    for name, mask in masks(out).items():
        np.testing.assert_array_equal(mask, masks(done)[name])
    again = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)
    assert again.returncode == 2
    assert "--resume" in again.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--batchInput", "x"], "both --batchInput and --batchOutput"),
        (["--batchInput", "x", "--batchOutput", "y", "--ct", "c.nrrd"], "either --batchInput or the images"),
        (["--resume"], "required: output"),
    ],
)
def test_a_bad_call_of_slicers_module(words: list[str], reason: str) -> None:
    ended = subprocess.run([sys.executable, CLI_MODULE, *words], capture_output=True, encoding="utf-8")
    assert ended.returncode == 2
    assert reason in ended.stdout


def test_a_state_that_cannot_be_written_stops_the_batch(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: BatchState, record: Record) -> None:
        from TeachFormerCore.errors import InputError

        raise InputError("state.jsonl could not be written (disk full): free some space.")

    monkeypatch.setattr(BatchState, "append", full)
    assert batch("--model", model, "--input", images, "--output", tmp_path / "out", "--runtime", "torch") == 2
    assert "could not be written" in capsys.readouterr().err


def test_state_and_summary_by_hand(tmp_path: Path) -> None:
    file = state_file(tmp_path, None)
    begun = BatchState(file, {"model": "m"}, resume=False)
    with pytest.raises(InputError, match="begun already"):  # two at once
        BatchState(file, {"model": "m"}, resume=False)
    begun.withdraw()
    assert not file.exists(), "nothing was begun"
    file.write_bytes(b'{"bat')  # killed while it began
    error = {"cause": "c", "fix": "f", "original": "", "exit_code": 2}
    BatchState(file, {"model": "m"}).append(Record(case="x", state=FAILED, seconds=1.0, error=error))
    BatchState(file, {"model": "other"})
    BatchState(state_file(tmp_path, (1, 2)), {}).append(Record(case="y", state=DONE, seconds=2.0))
    with file.open("ab") as stream:
        stream.write(b'\xff\n[1]\n{"case": 3}\n' + b"[" * 100_000 + b'\n{"case": "y", "state": "failed"')
    BatchState(file, {}).append(Record(case="z", state=DONE, seconds=3.0))
    BatchState(file, {}).withdraw()
    facts, records = read_states(tmp_path)
    assert facts == [{}, {"model": "m"}]
    assert {name: record.state for name, record in records.items()} == {"x": FAILED, "y": DONE, "z": DONE}
    (tmp_path / "y.json").write_text(json.dumps({"labels": [{"name": "GTV", "voxels": 3, "pet": None}]}))
    write_summary(tmp_path, ["w", "x", "y", "z"], records, {"model": "m"}, OutputFiles())
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as stream:
        rows = [
            (row["case"], row["state"], row["label"], row["voxels"], row["cause"]) for row in csv.DictReader(stream)
        ]
    # z's own file is gone, so it is to be done again.
    assert rows == [
        ("w", "open", "", "", ""),
        ("x", "failed", "", "", "c"),
        ("y", "done", "GTV", "3", ""),
        ("z", "open", "", "", ""),
    ]


def recorded(case: str, state: str, task: str, ended: float) -> Record:
    return Record(case=case, state=state, seconds=1.0, task=task, ended=ended)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([(DONE, "t", 1)], [(FAILED, "t", 2)], (DONE, "t")),
        ([(FAILED, "t", 2)], [(DONE, "t", 1)], (DONE, "t")),
        ([(DONE, "old", 1)], [(FAILED, "new", 2)], (FAILED, "new")),
        ([(FAILED, "new", 2)], [(DONE, "old", 1)], (FAILED, "new")),
        ([(DONE, "new", 2)], [(DONE, "old", 1)], (DONE, "new")),
        ([(DONE, "t", 1), (FAILED, "t", 2)], [], (FAILED, "t")),
    ],
)
def test_which_record_of_a_case_holds(
    first: list[tuple], second: list[tuple], expected: tuple[str, str], tmp_path: Path
) -> None:
    """In one file the last; of two files that it is done, for one task; else the later."""
    for number, entries in enumerate((first, second), 1):
        for entry in entries:
            BatchState(state_file(tmp_path, (number, 2)), {}).append(recorded("x", *entry))
    record = read_states(tmp_path)[1]["x"]
    assert (record.state, record.task) == expected


def test_numbers_that_are_none_are_passed_over(tmp_path: Path) -> None:
    lines = [f'{{"case": "{name}", "state": "done", "seconds": {number}}}' for name, number in
             (("a", "NaN"), ("b", "1e999"), ("c", "1" + 400 * "0"), ("d", "2"))]  # fmt: skip
    (tmp_path / "state.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    assert {name: record.seconds for name, record in read_states(tmp_path)[1].items()} == {
        "a": 0,
        "b": 0,
        "c": 0,
        "d": 2,
    }
