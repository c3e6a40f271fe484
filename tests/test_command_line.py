"""A wrong word of the command line, and what it is told."""

from dataclasses import dataclass
from typing import Literal

import pytest

import command_line
import runner
from utils.text import one_line

COMPLAINTS = {
    (
        "train",
        "3",
        "--epochs",
        "abc",
    ): "--epochs: 'abc' is not a whole number (see runner.py train --help)",
    ("train", "3", "--epochs="): "--epochs: '' is not a whole number (see runner.py train --help)",
    (
        "train",
        "3",
        "--epochs",
    ): "--epochs needs a value, a whole number (see runner.py train --help)",
    ("train", "3", "--lr", "x"): "--lr: 'x' is not a number (see runner.py train --help)",
    ("train", "3", "--lr", "nan"): "--lr is nan: give a number above 0",
    (
        "train",
        "3",
        "--lr",
        "1e308",
        "--lr-batch",
        "1",
    ): "--lr is 1e+308: with this --batch-size the rate is infinite",
    (
        "train",
        "3",
        "--betas",
        "1",
    ): "--betas needs 2 values, a number each (see runner.py train --help)",
    (
        "train",
        "3",
        "--betas",
        "1",
        "x",
    ): "--betas: 'x' is not a number (see runner.py train --help)",
    ("train", "3", "--ema", "x"): "--ema: 'x' is not a number or None (see runner.py train --help)",
    (
        "train",
        "3",
        "--optimizer",
        "adam",
    ): "'adam' is not one of adamw, sgd: did you mean 'adamw'? (see runner.py",
    ("train", "3", "--classic.epochs", "0"): "--classic.epochs is 0: give 1 to 1,000,000",
    ("train", "3", "--classic.mixup", "-1"): "--classic.mixup is -1.0: give 0 or more",
    (
        "train",
        "3",
        "--epoch",
        "5",
    ): "train has no option '--epoch': did you mean '--epochs'? (see runner.py train",
    ("train", "3", "--zzz", "5"): "train has no option '--zzz' (see runner.py train --help)",
    (
        "train",
        "3",
        "--dry-run",
    ): "--dry-run is no option of train, only of all (see runner.py train --help)",
    ("train", "3", "--study", "--"): "--study needs a value, a word or None (see runner.py",
    ("show", "--"): "show has no option '--' (see runner.py show --help)",
    (
        "report",
        "--run",
        "runs",
    ): "--run is no option of report, only of predict, export: did you mean '--runs'? (see",
    ("train", "3", "--no-trial=yes"): "--trial takes no value: give --trial or --no-trial alone",
    (
        "train",
        "3",
        "--decay-all",
        "yes",
    ): "--decay-all takes no value: give --decay-all or --no-decay-all alone",
    (
        "train",
        "3",
        "4",
    ): "'4' is one word too many: train takes one step (see runner.py train --help)",
    ("train", "9" * 5000): "there is no step 99999999999999999999: steps are numbered 0 to 13",
    (
        "train",
        "3",
        "--device",
        "gpu",
    ): "there is no device 'gpu': did you mean 'cpu'? choose auto, cpu, cuda",
    (
        "train",
        "3",
        "--regime",
        "tyni",
    ): "no regime 'tyni': did you mean 'tiny'? choose tiny, base, small, pocket",
    ("train",): "no step was given: train needs it (see runner.py train --help)",
    ("export",): "no --out was given: export needs it (see runner.py export --help)",
    (
        "trian",
        "3",
    ): "there is no command 'trian': did you mean 'train'? choose steps, check, train, all",
    ("--lr", "3", "train"): "'--lr' comes before the command: give one of steps, check, train",
    ("show", "\udcff\n\x1b"): r"there is no step '\udcff\n\x1b' (a number from 0 to 13",
    (
        "predict",
        "a.png",
        "--run",
        "x",
        "b.png",
    ): "'b.png' stands apart from the other images: give them together",
    ("export", "--run", "x" * 5000, "--out", "none/x"): "File name too long",
    (
        "train",
        "3",
        "--preset",
        "pocket",
        "--init-weights",
        "/dev/zero",
    ): "the weights /dev/zero are no file: give a",
    (
        "predict",
        "/dev/zero",
        "--run",
        "x",
    ): "/dev/zero is neither a file nor a folder: give images, or folders",
}


@pytest.mark.parametrize("arguments", COMPLAINTS)
def test_a_wrong_word_is_named_with_what_is_accepted(arguments, capsys) -> None:
    assert runner.main(arguments) == 2
    said = capsys.readouterr().err
    assert COMPLAINTS[arguments] in said
    assert said.count("\n") == 1
    assert len(said) < 1200


def test_a_complaint_is_one_line_whatever_it_quotes() -> None:
    assert one_line("a\n b\x1b[31m\udcff") == r"a b\x1b[31m\udcff"
    assert len(one_line("x" * 10_000)) < 1100


def test_options_are_read_off_the_commands() -> None:
    known = {option.name: option for option in command_line.options(runner.All)}
    assert known["--classic.batch-size"].kind is int
    assert known["--trial"].spellings == ("--trial", "--no-trial")
    assert known["--layer-scale"].or_none
    assert (known["--seeds"].least, known["--betas"].least) == (1, 2)
    assert (
        "--init-weights" in known
    )  # a file; what a study records of it, config.init_weights, is no option
    (step,) = (option for option in command_line.options(runner.Train) if option.standing_alone)
    assert (step.name, step.required) == ("step", True)


@dataclass(frozen=True)
class Maybe:
    """A command that is not there."""

    design: Literal["orders", "factorial"] | None = None


def test_few_words_or_none_are_taken_and_named() -> None:
    commands = {"maybe": Maybe, "report": runner.Report}
    for words, expected in ((["--design", "None"], None), (["--design=orders"], "orders")):
        made, given = command_line.parse(
            commands, ["maybe", *words], lambda _: {name: kind() for name, kind in commands.items()}
        )
        assert (made.design, list(given)) == (expected, ["--design"])
    with pytest.raises(
        ValueError, match="'order' is not one of orders, factorial or None: did you mean 'orders'"
    ):
        command_line.parse(commands, ["maybe", "--design", "order"], lambda _: {})


def test_options_of_a_command_line_can_be_left_out_with_their_values() -> None:
    words = [
        "all",
        "--steps",
        "3",
        "4",
        "--sbatch",
        "mem=1G",
        "exclusive",
        "--epochs=3",
        "--time_limit=1",
        "--worker",
    ]
    assert command_line.without(words, ("--sbatch", "--time-limit", "--worker")) == [
        *words[:4],
        "--epochs=3",
    ]
