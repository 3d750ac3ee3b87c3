"""What all converters share: broken cases, resuming, being killed or interrupted, memory."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import archives
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.convert import hecktor21
from TeachFormerCore.data.convert.archive import Archive, SourceCase, TargetCase
from TeachFormerCore.data.convert.conversion import convert
from TeachFormerCore.data.convert.memory import MEMORY_BUDGET, Budget, case_bytes
from TeachFormerCore.data.dataset import open_dataset
from TeachFormerCore.data.verification import check_dataset
from TeachFormerCore.errors import InputError


def test_a_broken_case_is_named_and_a_second_run_mends_it(tmp_path, cli):
    source, dst = tmp_path / "src", tmp_path / "dst"
    archives.hecktor(source, {"CHUM001": {}, "CHUM002": {"box": False}, "CHUP003": {}, "CHUP004": {}}, box_mm=12)
    broken = source / "hecktor_nii" / "CHUP003_pt.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    first = cli("data", "convert", "hecktor21", source, dst, "--test", "none")
    assert first.returncode == 1
    assert "2 of 4 cases converted" in first.stdout
    assert "failed: CHUM002: " in first.stdout
    assert "no box for CHUM002" in first.stdout
    assert "failed: CHUP003: " in first.stdout
    assert str(broken) in first.stdout
    assert archives.names(dst, "labelsTr") == ["CHUM001", "CHUP004"]
    assert check_dataset(open_dataset(dst)) == []  # numTraining and the files agree
    kept = dst / "labelsTr" / "CHUM001.nii.gz"
    written = kept.stat().st_mtime_ns
    broken.write_bytes(whole)
    second = cli("data", "convert", "hecktor21", source, dst, "--test", "none", "--json")
    report = json.loads(second.stdout)
    assert second.returncode == 1
    assert (report["total"], report["converted"], report["already_there"]) == (4, 3, 2)
    assert list(report["failed"]) == ["CHUM002"]
    assert archives.names(dst, "labelsTr") == ["CHUM001", "CHUP003", "CHUP004"]
    assert kept.stat().st_mtime_ns == written  # not made again


def test_nothing_is_published_while_nothing_can_be_read(tmp_path, cli):
    archives.hecktor(tmp_path / "src", {"CHUM001": {"box": False}})
    done = cli("data", "convert", "hecktor21", tmp_path / "src", tmp_path / "dst", "--test", "none")
    assert done.returncode == 1
    assert "0 of 1 cases converted" in done.stdout
    assert not (tmp_path / "dst").exists()


def test_a_source_that_changed_is_converted_again(tmp_path):
    source, dst = tmp_path / "src", tmp_path / "dst"
    archives.hecktor(source, {"CHUM001": {}, "CHUP002": {}}, box_mm=12)
    convert(hecktor21.archive(source, test="none"), dst)
    assert convert(hecktor21.archive(source, test="none"), dst).already == 2
    before = archives.array(dst, "imagesTr", "CHUM001_0001").max()
    file = source / "hecktor_nii" / "CHUM001_pt.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(file)) * 2, str(file))
    assert convert(hecktor21.archive(source, test="none"), dst).already == 1
    assert archives.array(dst, "imagesTr", "CHUM001_0001").max() == pytest.approx(2 * before)
    (dst / "labelsTr" / "CHUP002.nii.gz").unlink()  # a file that was lost is made again
    assert convert(hecktor21.archive(source, test="none"), dst).already == 1
    assert archives.names(dst, "labelsTr") == ["CHUM001", "CHUP002"]


def test_a_killed_run_resumes(tmp_path):
    """Killed for real in the middle; what was whole is kept, and the result is the same as in one go."""
    source, dst = tmp_path / "src", tmp_path / "dst"
    archives.hecktor(source, {f"CHUM{n:03d}": {} for n in range(6)}, box_mm=50)
    archive = hecktor21.archive(source, test="none")
    convert(archive, tmp_path / "in one go")
    building = tmp_path / ".dst.converting"
    command = [sys.executable, "-m", "TeachFormerCore", "data", "convert", "hecktor21", source, dst, "--test", "none"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [*map(str, command), "--threads", "1"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and len(archives.names(building, "labelsTr")) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    assert process.wait() != 0
    assert not dst.exists()
    with (building / "conversion.jsonl").open("a", encoding="utf-8") as record:
        record.write('{"case": "CHUM005", "sour')  # a line that was being written
    outcome = convert(archive, dst)
    assert 1 <= outcome.already < 6
    assert outcome.done == 6
    assert not building.exists()
    images = {
        file: content for file, (content, _) in archives.state(tmp_path / "in one go").items() if file.suffix == ".gz"
    }
    again = {file: content for file, (content, _) in archives.state(dst).items() if file.suffix == ".gz"}
    assert {f: archives.array(dst, f.parent, f.name[:-7]).tobytes() for f in again} == {
        f: archives.array(tmp_path / "in one go", f.parent, f.name[:-7]).tobytes() for f in images
    }
    assert convert(archive, dst).already == 6  # and the broken line did not spoil the record


def test_places_that_are_refused(tmp_path):
    source = tmp_path / "src"
    archives.hecktor(source, {"CHUM001": {}, "CHUM002": {}}, box_mm=12)
    archive = hecktor21.archive(source, test="none")
    for inside in (source / "out", source, tmp_path):
        with pytest.raises(InputError, match="lie in each other"):
            convert(archive, inside)
    (tmp_path / "full").mkdir()
    with pytest.raises(InputError, match="is no conversion"):
        convert(archive, tmp_path / "full")
    convert(archive, tmp_path / "dst")
    with pytest.raises(InputError, match="test none; now hecktor21 version 1, test paper"):
        convert(hecktor21.archive(source), tmp_path / "dst")
    assert archives.names(tmp_path / "dst", "labelsTr") == ["CHUM001", "CHUM002"]


def test_an_interrupted_second_run_leaves_the_dataset_where_it_was(tmp_path):
    """Ctrl+C while a case is added: what was there before is there after it."""
    (tmp_path / "src").mkdir()
    image = sitk.Image((4, 4, 4), sitk.sitkFloat32)

    def archive(read):
        cases = [
            SourceCase(name="a", files=[], read=lambda: [TargetCase(name="a", images=[image], label=None)]),
            SourceCase(name="b", files=[], read=read),
        ]
        return Archive(
            challenge="t", source=tmp_path / "src", channels=["T1"], labels=None, licence="", reference="", cases=cases
        )

    def broken():
        raise InputError("broken")

    def interrupted():
        raise KeyboardInterrupt

    assert convert(archive(broken), tmp_path / "dst").failed == {"b": "broken"}
    with pytest.raises(KeyboardInterrupt):
        convert(archive(interrupted), tmp_path / "dst")
    assert archives.names(tmp_path / "dst", "imagesTr") == ["a_0000"]
    assert not list(tmp_path.glob(".*"))


def test_memory_is_shared_out():
    """Cases wait for each other where together they would hold too much, and the largest runs alone."""
    budget, held, most = Budget(10), 0, 0
    lock = threading.Lock()

    def work(size):
        nonlocal held, most
        with budget.hold(size):
            with lock:
                held += size
                most = max(most, held)
            time.sleep(0.01)
            with lock:
                held -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in (4, 4, 4, 3, 9, 2, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert held == 0
    assert most == 25  # the one that is too large for the budget, and nothing beside it
    case = SourceCase(name="x", files=[], read=list)
    assert case_bytes(case) == 0 < MEMORY_BUDGET


def test_an_internal_error_in_a_case_does_not_stop_the_others(tmp_path):
    (tmp_path / "src").mkdir()
    image = sitk.Image((4, 4, 4), sitk.sitkFloat32)

    def fails():
        raise RuntimeError("ITK ERROR: something broke")

    cases = [
        SourceCase(name="a", files=[], read=fails),
        SourceCase(name="b", files=[], read=lambda: [TargetCase(name="b", images=[image], label=None)]),
        SourceCase(name="c", files=[], read=lambda: [TargetCase(name="c", images=[], label=None)]),
    ]
    archive = Archive(
        challenge="test", source=tmp_path / "src", channels=["T1"], labels=None, licence="", reference="", cases=cases
    )
    outcome = convert(archive, tmp_path / "dst")
    assert outcome.failed == {"a": "RuntimeError: something broke", "c": "The case c has 0 of 1 channels."}
    assert archives.names(tmp_path / "dst", "imagesTr") == ["b_0000"]
