"""Food-101 (Bossard et al., ECCV 2014): 101,000 photographs of 101 dishes. Downloaded as
torchvision does."""

import os
import shutil
import tarfile
from pathlib import Path

from data import folder_structure
from data.splits import Dataset, Origin, Published
from utils.files import one_writer, require_free, sync_folder
from utils.text import one_line

FOLDER = "food-101"
DOWNLOAD_BYTES = 10_500_000_000
"""Free disk that a download needs: the archive of 5 GB and the images unpacked from it."""


def read(root: Path) -> Dataset | None:
    if not os.path.lexists(root / FOLDER):
        return None
    return folder_structure.read(
        root / FOLDER,
        name="food101",
        splits="food101",
        synthetic=False,
        description="Food-101 (Bossard et al., 2014): photographs of 101 dishes; official test "
        "set, a fixed stratified "
        "10 % of the training set held out for selection.",
        remedy="delete it to download it again",
    )


def fetch(root: Path) -> None:
    from torchvision.datasets import Food101
    from torchvision.datasets.utils import download_url

    archive = root / Path(Food101._URL).name
    unpacking = root / f"{FOLDER}.part"
    with one_writer(root / FOLDER):
        if (root / FOLDER).exists():
            return
        if not hasattr(tarfile, "data_filter"):
            raise OSError(
                "unpacking Food-101 safely needs Python 3.11.4 or later; put the unpacked "
                f"{FOLDER} into {root}"
            )
        require_free(root, DOWNLOAD_BYTES, "Food-101 (archive and images)")
        try:
            download_url(Food101._URL, str(root), md5=Food101._MD5)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"Food-101 could not be downloaded ({one_line(error)}); check the network, or put "
                f"{archive.name} or "
                f"the unpacked {FOLDER} into {root}"
            ) from error
        shutil.rmtree(unpacking, ignore_errors=True)
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(
                    unpacking, filter="data"
                )  # refuses members that lead out of the folder
            os.sync()  # one for all images, as in data.pocket_images
            os.replace(unpacking / FOLDER, root / FOLDER)
        except (OSError, tarfile.TarError) as error:
            shutil.rmtree(unpacking, ignore_errors=True)
            raise OSError(
                f"{archive} could not be unpacked into {root} ({one_line(error)})"
            ) from error
        sync_folder(root)
        shutil.rmtree(unpacking)
        archive.unlink()


ORIGIN = Origin(
    "food101",
    read,
    Published(
        train=75_750,
        test=25_250,
        classes=101,
        bytes=DOWNLOAD_BYTES,
        height=384,
        width=512,
        fetch=fetch,
    ),
)
