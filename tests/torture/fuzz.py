"""Wrong requests by the thousand, each carried out for real: none may end in a traceback, hang, or
leave a file behind.

    python -m tests.torture.fuzz --requests 2000 --seed 0 --out tests/torture/fuzz.json

The requests are drawn from a seed: over every option that the commands' dataclasses have (wrong
types, numbers beyond all bounds, bytes that are no text, devices and pipes for files), misspelt
names, words missing or too many, make's variables, and over damaged study folders and config files.
Most run in a forked child of this process (the first quarter without torch, about words; the rest
with it, about files too), some as `python runner.py`. What is wrong with an answer is a finding;
findings are printed and the exit code is 1.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import runner
from studies import train
from tests.torture.fuzz_requests import Request, World, draw

ROOT = Path(__file__).parents[2]
_MEMORY = 12 * 2**30
"""Bytes of address space of one request: reading a device that never ends fails, and is found,
before the machine."""
_CODES = (0, 1, 2, 75)


@dataclass(frozen=True)
class Answer:
    """How a request ended; code None is a hang, a negative one a signal."""

    code: int | None
    out: str
    err: str
    changed: tuple[str, ...]
    """Files made, removed or rewritten."""


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """What tells a change of any file below `folder`; of folders, that they are there."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in folders:
            found[os.path.join(place, name)] = (0,)
        for name in files:
            status = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = (
                status.st_mode,
                status.st_size,
                status.st_mtime_ns,
                status.st_ino,
            )
    return found


def run_all(request: Request, world: World, limit: float) -> Answer:
    """Run the request in the world's folder, which it may change."""
    if request.prepare:
        request.prepare(world.folder)
    before = snapshot(world.folder)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if request.kind == "make":
            code = _start(
                ["make", "--no-print-directory", "-C", str(ROOT), *request.arguments],
                world,
                out,
                err,
                limit,
            )
        elif request.plain:
            code = _start(
                [sys.executable, str(ROOT / "runner.py"), *request.arguments],
                world,
                out,
                err,
                limit,
            )
        else:
            code = _fork(request.arguments, world, out, err, limit)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    after = snapshot(world.folder)
    changed = tuple(
        sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    )
    return Answer(code, *texts, changed)


def _start(command, world, out, err, limit):  # type: ignore[no-untyped-def]
    environment = {
        k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKEOVERRIDES")
    } | world.environment
    with subprocess.Popen(
        command,
        cwd=world.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
    ) as process:
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _fork(arguments, world, out, err, limit):  # type: ignore[no-untyped-def]
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.setsid()
            _limit_memory()
            os.chdir(world.folder)
            os.environ.update(world.environment)
            train._DATASETS = world.folder / "datasets"
            for there, here in (
                (os.open(os.devnull, os.O_RDONLY), 0),
                (out.fileno(), 1),
                (err.fileno(), 2),
            ):
                os.dup2(there, here)
            try:
                code = runner.main(list(arguments))
            except SystemExit as end:
                code = int(end.code or 0)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            os._exit(code)
    end, pause = time.monotonic() + limit, 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(pause)
        pause = min(0.05, 1.5 * pause)


def finding(request: Request, answer: Answer) -> str | None:
    """What is wrong with the answer, if anything is."""
    if answer.code is None:
        return "it hangs"
    if request.kind == "make":
        return None if request.judge is None else request.judge(answer.out, answer.err)
    if answer.code not in _CODES:
        return f"exit code {answer.code}"
    if "Traceback" in answer.err + answer.out:
        return "a traceback"
    lines = answer.err.splitlines()
    if answer.code in (1, 2):
        complaints = [line for line in lines if line.startswith("runner.py: ")]
        if len(complaints) != 1 or (answer.code == 2 and len(lines) != 1):
            return f"{len(complaints)} complaints in {len(lines)} lines"
        if len(lines[-1]) > 1500:
            return "a complaint too long to read"
        if re.search(
            r"tyro|invalid literal|NoneType|Errno|object has no|Argument helptext", complaints[0]
        ):
            return "a complaint in Python's words"
    if answer.code == 2:
        if answer.changed:
            return f"refused, and changed {answer.changed[:3]}"
        if answer.out:
            return "refused, and printed something"
    if request.refused and answer.code != 2:
        return f"accepted with exit code {answer.code}"
    return None if request.judge is None else request.judge(answer.out, answer.err)


def fuzz(world: World, asked: argparse.Namespace) -> dict[str, object]:
    """Carry out the requests asked for, and count them by kind and exit code."""
    rng, began = random.Random(asked.seed), time.monotonic()
    counts: Counter[str] = Counter()
    found: list[dict[str, object]] = []
    plain, slowest, result = 0, 0.0, {}
    light = 0 if asked.words_only else asked.requests // 4
    for number in range(asked.requests):
        if number == light:
            import report.page  # and with it all that is heavy: from now on children have it already
            import studies.run_queue  # noqa: F401

            assert report.page
        request = draw(rng, world, plain=number % 20 == 0, light=asked.words_only or number < light)
        plain += request.plain
        started = time.monotonic()
        answer = run_all(request, world, asked.limit)
        seconds = time.monotonic() - started
        slowest = max(slowest, seconds)
        counts[f"{request.kind}: exit code {answer.code}"] += 1
        if asked.verbose:
            print(
                f"{number} {seconds:.1f} s {answer.code} {request.kind} {request.note} "
                f"{request.arguments!a}"
            )
        if (wrong := finding(request, answer)) is not None:
            found.append(
                {
                    "number": number,
                    "kind": request.kind,
                    "arguments": [ascii(a) for a in request.arguments],
                    "damage": request.note,
                    "finding": wrong,
                    "stderr": answer.err[-1500:],
                }
            )
            print(json.dumps(found[-1]), flush=True)
        if answer.changed or request.prepare:
            world.restore()
        result = {
            "seed": asked.seed,
            "requests": number + 1,
            "of": asked.requests,
            "as a process of their own": plain,
            "counts": dict(sorted(counts.items())),
            "slowest_seconds": round(slowest, 1),
            "findings": len(found),
            "found": found,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "versions": {name: version(name) for name in ("torch", "tyro", "numpy", "pandas")},
        }
        if asked.out and (number % 100 == 99 or number + 1 == asked.requests):
            asked.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=120, help="seconds that a request may take")
    parser.add_argument(
        "--out",
        type=Path,
        help="where the counts are written, as JSON, after every hundredth request",
    )
    parser.add_argument("--words-only", action="store_true", help="no damaged study folders")
    parser.add_argument("--verbose", action="store_true", help="print every request")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        result = fuzz(World(Path(folder).resolve()), asked)
    print(json.dumps({key: value for key, value in result.items() if key != "found"}, indent=1))
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
