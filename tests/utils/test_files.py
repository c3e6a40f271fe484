"""A file is replaced whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from utils.files import read_bytes, write_atomically


def test_processes_that_write_the_same_file_wait_for_each_other(tmp_path: Path) -> None:
    """Without that, one cuts the file short that the other is about to rename, or renames it
    away."""
    program = (
        "import sys, pathlib\nfrom utils.files import write_atomically\n"
        "for _ in range(30):\n"
        "    write_atomically(pathlib.Path(sys.argv[1]), sys.argv[2].encode() * 200_000)\n"
    )
    path, finished_study = tmp_path / "file", Path(__file__).parents[2]
    write_atomically(path, b"a" * 200_000)
    writers = [
        subprocess.Popen([sys.executable, "-c", program, path, letter], cwd=finished_study)
        for letter in "abc"
    ]
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        assert len(content) == 200_000
        assert len(set(content)) == 1
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert [left.name for left in tmp_path.iterdir()] == ["file"]


def test_a_failure_names_the_file_keeps_it_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / "file.part").write_bytes(b"longer than what a process that died has left" * 9)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")  # type: ignore[arg-type]
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"new"
    with pytest.raises(OSError, match="gone/file") as caught:
        write_atomically(tmp_path / "gone/file", b"new")
    assert caught.value.filename == str(tmp_path / "gone/file")


@pytest.mark.skipif(
    not Path("/proc/self/mem").exists(),
    reason="Linux has a file that cannot be read from its start",
)
def test_a_read_that_fails_names_its_file() -> None:
    with pytest.raises(OSError, match="Input/output error") as told:
        read_bytes(Path("/proc/self/mem"))
    assert told.value.filename == "/proc/self/mem"
