"""Random wrong requests, each run for real: none may end in a traceback or leave a file behind.

    python -m tests.torture.fuzz --requests 500 --seed 0

A request is a command with wrong words, options or values, or a sound command on a damaged study.
It runs in a forked child. A refusal (exit code 2) must be one line and change nothing. Prints every
violation; exit code 1 if there is one.
"""

import argparse
import contextlib
import io
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

import runner
from tests.torture.forked import start

COMMANDS = list(runner.COMMANDS)
VALUES = [
    *("", "x", "0", "-1", "1", "nan", "inf", "1e999", "99999999999999999999", "None", "--", "-"),
    *("a b", "../x", "\udcff\n\x1b", "x" * 5000, "/dev/zero", "/proc/1/mem", "/", "lr=1", "3"),
    *("pocket", "gelu", "depthwise", "cpu", "cuda:99", "1,2", "runs", "runs/s/gelu/seed-0"),
]
QUICK = [
    *("--preset", "pocket", "--regime", "pocket", "--resolution", "32", "--epochs", "1"),
    *("--warmup-epochs", "0", "--batch-size", "12", "--workers", "0", "--no-trial"),
    *("--data-dir", ".", "--dataset", "imagefolder:images", "--study", "s", "--device", "cpu"),
]
RUN = "runs/s/gelu/seed-0"
ON_A_STUDY = [
    ["all", *QUICK, "--steps", "gelu", "--dry-run"],
    ["train", "gelu", *QUICK],
    ["report", "--study", "s"],
    ["report", "packed.pack"],
    ["status", "--study", "s"],
    ["pack", "s", "--out", "out.pack"],
    ["merge", "packed.pack", "runs/s", "--out", "out.pack"],
    ["unpack", "packed.pack", "--study", "t"],
    ["predict", "images/a/0.png", "--run", RUN],
    ["export", "--run", RUN, "--out", "exported"],
    ["check", "my.toml"],
]


def options_of(command: str) -> list[str]:
    """The options that a command's help lists."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        runner.main([command, "--help"])
    return sorted(set(re.findall(r"^. (--[\w.-]+)", text.getvalue(), re.M)))


def build(folder: Path) -> None:
    """Fill a folder with images, a study of one finished run, its pack and a roadmap."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(24):
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"images/{name}/{number}.png")
    (folder / "my.toml").write_text('[[step]]\nname = "a"\n[[step]]\nname = "b"\nwidth = 32\n')
    for arguments in (ON_A_STUDY[1], ["pack", "s", "--out", "packed.pack"]):
        code, _, errors = execute(arguments, 300)
        assert code == 0, errors


def wrong_words(rng: random.Random, options: dict[str, list[str]]) -> list[str]:
    """A command line with something wrong in it."""
    command = rng.choice(COMMANDS)
    arguments = [command]
    if command in ("train", "all"):
        arguments += QUICK + (["--dry-run"] if command == "all" else ["gelu"])
    for _ in range(rng.randint(1, 3)):
        option = rng.choice(options[rng.choice([command, command, rng.choice(COMMANDS)])])
        if rng.random() < 0.2:  # misspelt
            place = rng.randrange(2, len(option))
            option = option[:place] + option[place + 1 :]
        values = [rng.choice(VALUES) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
        arguments += [f"{option}={values[0]}"] if values and rng.random() < 0.3 else [option]
        arguments += values
    if rng.random() < 0.3:
        arguments.insert(rng.randrange(len(arguments) + 1), rng.choice(VALUES))
    return arguments


def damage(rng: random.Random, folder: Path) -> str:
    """Damage one file of the folder; returns a description."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    important = [path for path in files if "images" not in path.parts]
    file = rng.choice(important)
    content = file.read_bytes()
    kind = rng.choice(["empty", "torn", "bit", "list", "nan", "folder", "pipe", "gone"])
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind != "gone":
        place = rng.randrange(max(1, len(content)))
        flipped = content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)])
        replaced = {"empty": b"", "list": b"[]"}
        replaced["torn"] = content[:place]
        replaced["bit"] = flipped + content[place + 1 :]
        replaced["nan"] = re.sub(rb"\d+\.\d+", b"NaN", content, count=1)
        file.write_bytes(replaced[kind])
    return f"{file.relative_to(folder)}: {kind}"


def execute(arguments: list[str], seconds: float) -> tuple[int | None, str, str]:
    """Exit code (None: killed after so many seconds), output and errors of a command."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        out, errors = Path(name, "out"), Path(name, "errors")
        child, code, end = start(arguments, out, errors), None, time.monotonic() + seconds
        while code is None and time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if done else None
            time.sleep(0.01)
        if code is None:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return code, out.read_text(errors="replace"), errors.read_text(errors="replace")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file."""
    stats = {str(path): path.lstat() for path in folder.rglob("*")}
    return {
        name: (stat.st_size, stat.st_mtime_ns if not os.path.isdir(name) else 0)
        for name, stat in stats.items()
    }


def violation(code: int | None, out: str, errors: str, changed: bool) -> str | None:
    """The promise that an answer breaks, if any."""
    complaints = [line for line in errors.splitlines() if line.startswith("runner.py: ")]
    if code not in (0, 1, 2, 75, None) or "Traceback" in out + errors:
        return f"a crash, exit code {code}"
    if code in (1, 2) and len(complaints) != 1:
        return f"{len(complaints)} complaints"
    if code == 2 and (out or changed):
        return "refused, and printed something" if out else "refused, and changed a file"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=30, help="seconds for one request")
    arguments = parser.parse_args()
    rng, counts, violations = random.Random(arguments.seed), Counter[str](), 0
    options = {command: options_of(command) for command in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
        os.environ["XDG_CACHE_HOME"] = f"{root}/.cache"
        os.chdir(root)
        build(Path(root))
        os.chdir("/")
        for number in range(arguments.requests):
            folder = Path(tempfile.mkdtemp(prefix="request-", dir="/dev/shm"))
            os.system(f"cp -a {root}/. {folder}")
            os.chdir(folder)
            is_damage = number % 3 == 2
            note = damage(rng, folder) if is_damage else ""
            request = rng.choice(ON_A_STUDY) if is_damage else wrong_words(rng, options)
            before = snapshot(folder)
            code, out, errors = execute(request, arguments.limit)
            wrong = violation(code, out, errors, snapshot(folder) != before)
            counts[f"{'damage' if is_damage else 'words'}: exit code {code}"] += 1
            if wrong:
                violations += 1
                print(f"{number}: {wrong}: {request!a} {note}\n{errors[-1500:]}", flush=True)
            os.chdir("/")
            os.system(f"rm -rf {folder}")
    print(f"{arguments.requests} requests, {violations} violations, {dict(sorted(counts.items()))}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
