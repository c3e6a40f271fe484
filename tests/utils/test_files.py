"""A file is replaced whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from utils import files
from utils.files import read_bytes, write_atomically


def test_processes_that_write_the_same_file_wait_for_each_other(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\nfrom utils.files import write_atomically\n"
        "for _ in range(30):\n"
        "    write_atomically(pathlib.Path(sys.argv[1]), sys.argv[2].encode() * 200_000)\n"
    )
    path, root = tmp_path / "file", Path(__file__).parents[2]
    write_atomically(path, b"a" * 200_000)
    command = [sys.executable, "-c", program, str(path)]
    writers = [subprocess.Popen([*command, letter], cwd=root) for letter in "abc"]
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        assert len(content) == 200_000
        assert len(set(content)) == 1
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert [left.name for left in tmp_path.iterdir()] == ["file"]


def test_a_failure_names_the_file_keeps_it_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / "file.part").write_bytes(b"longer than the new content, of a killed process" * 9)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")  # type: ignore[arg-type]
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"new"
    with pytest.raises(OSError, match="gone/file'$"):
        write_atomically(tmp_path / "gone/file", b"new")
    with pytest.raises(OSError, match="gone/file'$"):
        read_bytes(tmp_path / "gone/file")


def test_a_file_is_replaced_where_there_are_no_posix_locks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    (tmp_path / "file").write_bytes(b"old")
    write_atomically(tmp_path / "file", b"new")
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_command_goes_on_when_its_reader_has_left() -> None:
    program = (
        "import sys; from utils.streams import Patient; sys.stdout = Patient(sys.stdout)\n"
        "for _ in range(100_000):\n    print('progress')\n"
        "print('done', file=sys.stderr)\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=root, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "progress\n"
        process.stdout.close()
        assert process.stderr.read() == "done\n"
    assert process.returncode == 0
