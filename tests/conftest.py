"""Real pictures, few and small, that the tests of training and of the command line share."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes what this user's runs remember."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one folder a class: 3 classes of 30 JPEGs, told apart by the direction of their stripes."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :48]
    for name, wave in (("across", y), ("diagonal", x + y), ("down", x)):
        (root / name).mkdir()
        for i in range(30):
            stripes = np.sin(wave * rng.uniform(0.5, 0.9) + rng.uniform(0, 6))[..., None]
            pixels = 128 + 90 * stripes * rng.uniform(0.4, 1, 3) + rng.normal(0, 12, (40, 48, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{i:02}.jpg")
    return root
