"""The sample case: checksums, resuming, mirrors; against a real HTTP server that cuts connections off."""

import hashlib
import http.server
import re
import threading
from pathlib import Path

import pytest

from TeachFormerCore.data.fetch import ATTRIBUTION_FILE, SAMPLES, Sample, fetch
from TeachFormerCore.errors import InputError

FILES = {"CT_image.nii.gz": bytes(range(256)) * 4000, "mask.nii.gz": b"mask" * 1000}


def checksums(files):
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


@pytest.fixture
def server():
    """Serves FILES; ``server.limit`` bytes a file, then the connection ends; ``server.ranges`` as asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rsplit("/", 1)[1]
            if name not in FILES:
                self.send_error(404)
                return
            content, start = FILES[name], 0
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked and self.server.knows_ranges:
                start = int(asked.group(1))
                self.server.ranges.append(start)
                if start >= len(content):
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : start + self.server.limit])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.limit, server.ranges, server.knows_ranges = 10**9, [], True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def sample(server=None, files=None):
    url = f"http://127.0.0.1:{server.server_port}/folder" if server else "http://127.0.0.1:9/nowhere"
    return Sample(url=url, files=files or checksums(FILES), attribution="CC BY 3.0\n")


def contents(folder: Path):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ATTRIBUTION_FILE}


def test_files_arrive_whole(server, tmp_path):
    assert {path.name for path in fetch(sample(server), tmp_path / "new")} == set(FILES)
    assert contents(tmp_path / "new") == FILES
    assert "CC BY" in (tmp_path / "new" / ATTRIBUTION_FILE).read_text(encoding="utf-8")
    assert fetch(sample(server), tmp_path / "new") == []  # nothing is fetched twice


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_download_goes_on_where_it_was(server, tmp_path, knows_ranges):
    server.limit = 300_000
    with pytest.raises(InputError, match="goes on where it was"):
        fetch(sample(server), tmp_path)
    (part,) = tmp_path.glob(".*.part")
    held = part.stat().st_size
    assert 0 < held <= 300_000
    assert not (tmp_path / part.name[1:-5]).exists()  # a file has its name only when it is whole
    server.limit, server.knows_ranges = 10**9, knows_ranges
    fetch(sample(server), tmp_path)
    assert contents(tmp_path) == FILES
    assert server.ranges == ([held] if knows_ranges else [])


def test_a_download_that_only_lacked_its_name(server, tmp_path):
    (tmp_path / ".mask.nii.gz.part").write_bytes(FILES["mask.nii.gz"])
    fetch(sample(server), tmp_path)
    assert contents(tmp_path) == FILES


def test_a_wrong_checksum_is_refused(server, tmp_path):
    wrong = {**checksums(FILES), "mask.nii.gz": "0" * 64}
    with pytest.raises(InputError, match="is not the file that was registered"):
        fetch(sample(server, wrong), tmp_path)
    assert not list(tmp_path.glob("*mask*"))
    assert not list(tmp_path.glob(".*"))


def test_errors_of_the_network(server, tmp_path):
    with pytest.raises(InputError, match="HTTP 404"):
        fetch(sample(server, {"other.nii.gz": "0" * 64}), tmp_path)
    with pytest.raises(InputError, match="--source"):
        fetch(sample(), tmp_path)


def test_from_a_folder(tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name, content in FILES.items():
        (mirror / name).write_bytes(content)
    fetch(sample(), tmp_path / "out", source=mirror)
    assert contents(tmp_path / "out") == FILES
    (mirror / "mask.nii.gz").write_bytes(b"changed")
    (tmp_path / "out" / "mask.nii.gz").unlink()
    with pytest.raises(InputError, match="registered"):
        fetch(sample(), tmp_path / "out", source=mirror)
    (tmp_path / "out" / "mask.nii.gz").write_bytes(b"the user's own")
    with pytest.raises(InputError, match="another content"):
        fetch(sample(), tmp_path / "out", source=mirror)
    assert (tmp_path / "out" / "mask.nii.gz").read_bytes() == b"the user's own"


def test_command_with_a_mirror_that_lacks_the_files(cli, tmp_path):
    done = cli("data", "fetch", "sts014", tmp_path / "out", "--source", tmp_path)
    assert done.returncode == 2
    assert "CT_image.nii.gz does not exist" in done.stderr
    assert cli("data", "fetch", "other", tmp_path / "out").returncode == 2


def test_what_is_registered():
    (sts,) = SAMPLES.values()
    assert sts.url.startswith("https://")
    assert len(sts.files) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in sts.files.values())
    assert "CC BY 3.0" in sts.attribution
