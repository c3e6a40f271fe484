"""Fixtures that the tests of data share."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.splits import Files, Split


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder and the address that it is served at."""
    folder = tmp_path_factory.mktemp("server")
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """40 images of noise of 12 to 80 pixels a side, as `tmp_path`/images/NUMBER.png."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    paths = tuple(tmp_path / "images" / f"{number}.png" for number in range(40))
    for path in paths:
        height, width = rng.integers(12, 80, 2)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return Split(
        "test-split",
        tuple(f"c/{n}" for n in range(40)),
        tuple(n % 7 for n in range(40)),
        Files(paths),
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder for caches that does not exist yet."""
    return tmp_path / "cache"
