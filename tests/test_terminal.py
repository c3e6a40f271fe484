"""Any terminal shows any text, and any name can be drawn."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

import runner

ROOT = Path(runner.__file__).parent


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", r"br\xfbl\xe9e"), ("utf-8", "brûlée")])
def test_text_that_the_terminals_encoding_lacks_is_escaped(encoding, shown, tmp_path) -> None:
    file = tmp_path / "mine.toml"
    text = "[[step]]\nname = 'a'\ndescription = 'crème brûlée'\n"
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "runner.py", "check", file],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    assert shown in done.stdout.decode(encoding)
    assert done.stderr == b""


def test_a_name_with_an_emoji_is_drawn_without_a_warning(finished_study, tmp_path) -> None:
    image = tmp_path / "🍜.png"
    Image.new("RGB", (40, 40), "red").save(image)
    run = finished_study / "runs/s/patchify-stem/seed-0"
    request = ["predict", str(image), "--run", str(run), "--plot", str(tmp_path / "plot.png")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert runner.main(request) == 0
    assert not [each for each in caught if "Glyph" in str(each.message)]
