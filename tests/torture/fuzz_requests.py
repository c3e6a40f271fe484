"""The wrong requests of `tests.torture.fuzz`: what is asked, in which folder, and what the answer
has to say."""

import difflib
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import command_line
import runner
from ablations import PAPER, get_regime
from ablations.presets import PRESETS, REGIMES
from tests.torture.fuzz_damages import DAMAGES
from utils.text import one_line

ROOT = Path(__file__).parents[2]
COMMANDS: Mapping[str, type] = runner.COMMANDS
STEPS = [step.name for step in PAPER.steps_in(get_regime("small"))]

PLACE = ["--preset", "pocket", "--runs", "runs", "--study", "sound"]
QUICK = [
    *PLACE,
    "--data-dir",
    "data",
    "--dataset",
    "imagefolder:images",
    "--resolution",
    "32",
    "--epochs",
    "1",
    "--warmup-epochs",
    "0",
    "--batch-size",
    "8",
    "--device",
    "cpu",
]
PLANNED = ["--dry-run", *QUICK]
# Requests that are answered quickly: what they train is trained already, and the rest is only
# planned.
SOUND: dict[str, list[str]] = {name: [] for name in COMMANDS} | {
    "steps": ["--regime", "small", "--resolution", "32"],
    "show": ["3", "--regime", "small", "--resolution", "32"],
    "train": ["depthwise", *QUICK],
    "all": ["--steps", "depthwise", "width", *PLANNED],
    "status": PLACE,
    "report": PLACE,
    "check": ["paper", "--preset", "pocket"],
    "pack": ["runs/sound", "--out", "sound.pack"],
    "unpack": ["whole.pack", "--study", "again"],
    "merge": ["runs/sound", "runs/sound", "--out", "merged.pack"],
    "predict": ["images/a/0.png", "--run", "runs/sound/depthwise/seed-0"],
    "export": ["--run", "runs/sound/depthwise/seed-0", "--out", "exported"],
}

SOUND_TRAIN = ["train", *SOUND["train"]]
AT_ODDS = [
    ["--dry-run", "--no-dry-run"],
    ["--seed", "0", "--seed", "0"],
    ["--preset", "pocket"] * 2,
    ["--epochs", "2", "--warmup-epochs", "2"],
    ["--micro-batches", "3"],
    ["--min-lr", "1", "--lr", "0.1"],
    ["--crop-scale", "1", "0.1"],
    ["--seeds"],
    ["--seeds", "0", "0"],
    ["--steps", "3", "patchify-stem"],
    ["--overwrite", "gelu"],
    ["--step", "3"],
    ["--trial=yes"],
    ["--no-trial", "no"],
    ["--run"],
    ["-5"],
    ["-"],
]

WORDS = [
    "",
    " ",
    "abc",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "0",
    "1.5",
    "99999999999999999999",
    "9" * 5000,
    "None",
    "true",
    "\u0663",
    "ünï",
    "猫",
    "\udcff\udcfe",
    "a\nb",
    "\x1b[31m",
    "x" * 5000,
    "../..",
    "/",
    ".",
    "~",
    "*",
    "$HOME",
    "'",
    '"',
    ";",
    "--",
    "=",
    "\\",
    "1,2",
    "[1]",
    "{}",
    "%s",
    "0x10",
    "1_0",
    "-0",
    "1e-400",
    "images",
    "empty",
    "pipe",
    "/dev/zero",
    "/dev/null",
    "/proc/self/mem",
    "dangling",
    "runs/sound",
    "imagefolder:",
    "imagefolder:empty",
    "imagefolder:pipe",
    "imagefolder:/dev",
    "cuda:99",
    "cuda:-1",
]


@dataclass(frozen=True)
class Request:
    """One request, and what has to be true of its answer."""

    kind: str
    arguments: tuple[str, ...]
    plain: bool = False
    """Whether it is a process of its own."""
    refused: bool = False
    """Whether it has to be."""
    judge: Callable[[str, str], str | None] | None = None
    """(stdout, stderr) to what is wrong with them."""
    prepare: Callable[[Path], None] | None = None
    """Damage to the folder before the request."""
    note: str = ""


class World:
    """A folder with images, a study of two trained steps, and files that are none."""

    def __init__(self, root: Path) -> None:
        self.folder, self._good = root / "world", root / "good"
        self.environment = {
            "HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": str(self.folder / "home/.cache"),
            "OMP_NUM_THREADS": "1",
        }
        for name in ("data", "runs", "home", "venv/bin"):
            (self.folder / name).mkdir(parents=True)
        # A process of its own: this one has not imported torch yet.
        command = [sys.executable, "-c", _MAKE, *QUICK]
        environment = os.environ | self.environment | {"PYTHONPATH": str(ROOT)}
        subprocess.run(
            command, cwd=self.folder, env=environment, check=True, stdout=subprocess.DEVNULL
        )
        (self.folder / "empty").touch()
        python = self.folder / "venv/bin/python"
        python.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c '{_ECHO}' \"$@\"\n")
        python.chmod(0o755)
        for name in ("run", "dev"):
            (self.folder / f"venv/{name}.stamp").touch()
            os.utime(self.folder / f"venv/{name}.stamp", (2**32, 2**32))
        shutil.copytree(self.folder, self._good)
        self.restore()

    def restore(self) -> None:
        """Everything as it was."""
        shutil.rmtree(self.folder)
        shutil.copytree(self._good, self.folder)
        os.mkfifo(self.folder / "pipe")
        (self.folder / "dangling").symlink_to("nowhere")


_MAKE = """
import sys, numpy, runner
from pathlib import Path
from PIL import Image
rng = numpy.random.default_rng(0)
for name in "abc":
    Path("images", name).mkdir(parents=True)
    for i in range(16):
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(f"images/{name}/{i}.png")
assert runner.main(["all", "--steps", "depthwise", "width", "--no-trial", *sys.argv[1:]]) == 0
assert runner.main(["pack", "runs/sound", "--out", "whole.pack"]) == 0
"""
_ECHO = """
import json, os, sys, command_line, runner
print(json.dumps(command_line.from_make(runner.COMMANDS, sys.argv[3:], os.environ)))
"""


def draw(rng: random.Random, world: World, plain: bool, light: bool) -> Request:
    """The next request; a light one is about words rather than files."""
    (kind,) = rng.choices(
        [_value, _typo, _structure, _make, _study], [8, 8, 6, 1, 0] if light else [8, 7, 6, 1, 5]
    )
    request = kind(rng, world, plain)
    while light and request.arguments[:1] in (
        ("predict",),
        ("export",),
    ):  # they would import torch, for seconds
        request = kind(rng, world, plain)
    return request


def _command_and_option(rng: random.Random) -> tuple[str, command_line.Option]:
    # Evenly over commands: two of them have nine tenths of the options.
    command = rng.choice(list(COMMANDS))
    return command, rng.choice(list(command_line.options(COMMANDS[command])))


def _value(rng: random.Random, world: World, plain: bool) -> Request:
    """One option with a value that it may not have."""
    command, option = _command_and_option(rng)
    words = [rng.choice(WORDS) for _ in range(max(1, min(option.least, 2)))]
    arguments = [command, *(PLANNED if option.name == "--steps" else SOUND[command])]
    if option.standing_alone:
        arguments.append(words[0]) if command == "predict" else arguments.__setitem__(1, words[0])
    elif option.kind is bool or rng.random() < 0.3:
        arguments.append(f"{option.name}={words[0]}")
    else:
        arguments += [option.name, *words]
    field = option.name.strip("-").rpartition(".")[2].split("-")[0]

    def names_it(out: str, err: str) -> str | None:
        said = err.lower().replace("--help", "")
        # However it is quoted, and a path of an imagefolder by itself.
        parts = [
            part
            for word in words
            for part in (word, word.removeprefix("imagefolder:"), ascii(word)[1:])
        ]
        shown = [one_line(part, 20)[:8].lower() for part in parts]
        if (
            not err.startswith("runner.py: ")
            or field.rstrip("s") in said
            or any(w and w in said for w in shown)
        ):
            return None
        return (
            None
            if "--" in said or "another config" in said
            else "the complaint names neither the option nor value"
        )

    # The sound data folder keeps a plain process from its default one, beside runner.py.
    return Request("value", tuple(arguments), plain and option.name != "--data-dir", judge=names_it)


def distance(one: str, other: str) -> int:
    """Fewest letters put in, left out or replaced between two words."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def _misspelt(rng: random.Random, word: str) -> str:
    for _ in range(2 if len(word) > 5 and rng.random() < 0.4 else 1):
        place = rng.randrange(len(word))
        letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
        word = word[:place] + rng.choice(["", letter, letter + word[place]]) + word[place + 1 :]
    return word


def _typo(rng: random.Random, world: World, plain: bool) -> Request:
    """A name that is nearly right."""
    command, option = _command_and_option(rng)
    while option.standing_alone:
        command, option = _command_and_option(rng)
    spellings = {
        name
        for o in command_line.options(COMMANDS[command])
        for name in o.spellings
        if name[0] == "-"
    }
    places: list[tuple[list[str], Callable[[str], list[str]]]] = [
        (sorted(spellings), lambda w: [command, *SOUND[command], f"--{w}", *["1"] * option.least]),
        (list(COMMANDS), lambda w: [w, *SOUND[command]]),
        (STEPS, lambda w: ["show", w, "--regime", "small"]),
        (STEPS, lambda w: ["all", *PLANNED, "--steps", w]),
        (list(PRESETS), lambda w: ["report", "--preset", w]),
        (list(REGIMES), lambda w: ["train", *SOUND["train"], "--regime", w]),
        (
            ["food101", "fashion-mnist", "pocket", "imagefolder"],
            lambda w: [*SOUND_TRAIN, "--dataset", w],
        ),
        (["auto", "cpu", "cuda"], lambda w: [*SOUND_TRAIN, "--device", w]),
        (["adamw", "sgd"], lambda w: [*SOUND_TRAIN, "--optimizer", w]),
        (["truncated-normal", "he"], lambda w: [*SOUND_TRAIN, "--classic.init", w]),
        (["table", "csv", "json"], lambda w: ["steps", "--format", w]),
    ]
    known, ask = rng.choice(places)
    right = rng.choice([option.name] if known[0][0] == "-" else known)
    wrong = right
    while not wrong or wrong in known or wrong in ("-", "--", "h") or wrong.isdecimal():
        wrong = right[:2] * (right[0] == "-") + _misspelt(rng, right.removeprefix("--"))
    arguments = ask(wrong.removeprefix("--") if right[0] == "-" else wrong)

    def suggests(out: str, err: str) -> str | None:
        if len(right.strip("-")) < 4:  # one letter is a third of it
            return None
        near = err.partition("did you mean '")[2].partition("'")[0]
        if not near:
            return f"{wrong!r} gets no suggestion, and {right!r} was meant"
        if near != right and distance(wrong, near) > distance(wrong, right):
            ratio = [difflib.SequenceMatcher(None, wrong, one).ratio() for one in (near, right)]
            return (
                None if ratio[0] >= ratio[1] else f"suggests {near!r} for {wrong!r}, not {right!r}"
            )
        return None

    return Request("typo", tuple(arguments), plain, refused=True, judge=suggests)


def _structure(rng: random.Random, world: World, plain: bool) -> Request:
    """Words missing, doubled, too many, in the wrong place, or at odds with each other."""
    command, option = _command_and_option(rng)
    arguments = [command, *SOUND[command]]
    what = rng.randrange(8)
    if what == 0:  # the last word is missing
        arguments = [*arguments, option.name] if option.least else arguments[:-1]
    elif what == 1:
        arguments = rng.sample(arguments, len(arguments))
    elif what == 2:
        del arguments[rng.randrange(len(arguments))]
    elif what == 3:
        arguments.insert(rng.randrange(len(arguments) + 1), rng.choice(WORDS))
    elif what == 4:
        arguments += rng.choice(AT_ODDS)
    elif what == 5:
        _, foreign = _command_and_option(rng)
        arguments += [foreign.name, *["1"] * foreign.least]
    elif what == 6:
        arguments = arguments[: rng.randrange(len(arguments))]
    else:
        arguments = [rng.choice(WORDS) for _ in range(rng.randrange(4))]
    # Without one of these words it would be a request to train for an hour, on images drawn beside
    # runner.py.
    if {"train", "all"} & set(arguments) and not {*QUICK} <= {*arguments}:
        arguments.append("--dry-run")
        plain = False
    return Request("structure", tuple(arguments), plain)


def _make(rng: random.Random, world: World, plain: bool) -> Request:
    """A value through make arrives as it was given."""
    value = rng.choice(
        [
            "a b",
            "it's",
            '"quoted"',
            "$HOME",
            "$(shell touch made)",
            "a;b",
            "a#b",
            "`date`",
            "a|b>c",
            "a\\b",
            "*",
            "ünï",
            "a=b",
            "$$",
            "%",
            "~",
            "(",
            "&&",
            "!",
            "a,b",
            "--x",
            "x" * 3000,
        ]
    )
    option, target = rng.choice(
        [
            ("DATASET", "all-ablations"),
            ("STUDY", "report"),
            ("RUNS", "demo"),
            ("OUT", "export"),
            ("INIT_WEIGHTS", "all-ablations"),
            ("LICENSE", "export"),
        ]
    )
    arguments = (target, f"VENV={world.folder}/venv", f"{option}={value}", "RUN=one")
    name = f"--{option.lower().replace('_', '-')}"

    def arrives(out: str, err: str) -> str | None:
        if (ROOT / "made").exists():
            (ROOT / "made").unlink()
            return f"make carried {value!r} out"
        try:
            words = json.loads(out.splitlines()[-1])
        except (ValueError, IndexError):
            return f"make did not start the runner: {err[-200:]}"
        return None if f"{name}={value}" in words else f"{value!r} arrived as {words!r}"

    return Request("make", arguments, judge=arrives, note=value)


FILES = ["study.json", "speeds.json"] + [
    f"depthwise/seed-0/{name}"
    for name in (
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "result.json",
        "predictions.csv",
        "model.safetensors",
        "checkpoint.pt",
    )
]


def _study(rng: random.Random, world: World, plain: bool) -> Request:
    """A damaged study, or a damaged note of a layout trial, then any command that reads it."""
    relative = rng.choice(FILES)
    damage, change = rng.choice(list(DAMAGES.items()))
    draws = random.Random(rng.random())

    def prepare(folder: Path) -> None:
        change(folder / "runs/sound" / relative, draws)

    command = rng.choice(["report", "report", "train", "all", "predict", "export"])
    if command == "train" and relative.endswith(("result.json", "checkpoint.pt")):
        command = "all"  # to train it again is another test's work
    return Request(
        "study", (command, *SOUND[command]), plain, prepare=prepare, note=f"{damage}: {relative}"
    )
