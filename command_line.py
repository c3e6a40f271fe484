"""The words of a command line, and of make's, to a command's dataclass; for wrong ones, one
sentence that says why.

What is an option, and what it accepts, is read off the dataclasses, so that no list of options is
kept by hand. Words are read here, because tyro's refusals are boxes that quote Python; tyro makes
the dataclass and the help.
"""

import contextlib
import functools
import glob
import io
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from utils.text import did_you_mean, one_line

PROGRAM = "runner.py"
Given = Mapping[str, Sequence[str]]
"""What a command line gives to each option, by the option's name: its values, or the flag as it was
written."""

_MANY = 10_000
_HELP = ("-h", "--help")
_POSITIONAL, _APPEND, _HIDDEN = (
    get_args(marked)[1]
    for marked in (
        tyro.conf.Positional[str],
        tyro.conf.UseAppendAction[str],
        Annotated[str, tyro.conf.Suppress],
    )
)


@dataclass(frozen=True)
class Option:
    """An option of a command, or a word of it that stands alone, as the command's dataclass
    declares it."""

    name: str
    """As it is written, such as --classic.batch-size; without dashes if it stands alone."""
    kind: type
    """Of each of its values: int, float, str, Path, or bool for a flag, which has no value."""
    least: int
    most: int
    """How many values it takes."""
    choices: tuple[str, ...] = ()
    """The only words it takes, if they are few."""
    or_none: bool = False
    """Whether it takes the word None as well."""
    required: bool = False
    repeated: bool = False
    """Whether it is given again for each of several values."""

    @property
    def standing_alone(self) -> bool:
        return not self.name.startswith("--")

    @property
    def spellings(self) -> tuple[str, ...]:
        """A flag can be negated: --trial and --no-trial, --classic.decay-all and
        --classic.no-decay-all."""
        if self.kind is not bool:
            return (self.name,)
        head, dot, last = self.name.removeprefix("--").rpartition(".")
        return self.name, f"--{head}{dot}no-{last}"

    def complaint(self, values: Sequence[str]) -> str | None:
        """What is wrong with its values: one that it does not take, or too few of them."""
        words = {int: "a whole number", float: "a number", Path: "a path"}.get(self.kind, "a word")
        accepts = (
            f"one of {', '.join(self.choices)}" if self.choices else words
        ) + " or None" * self.or_none
        for value in values:
            if not self._takes(value):
                hint = did_you_mean(value, self.choices, after=" ")
                return (
                    f"{self.name}: {_quoted(value)} is not "
                    f"{accepts}{': ' + hint.strip() if hint else ''}"
                )
        if len(values) < self.least:
            count = "a value" if self.least == 1 else f"{self.least} values"
            return f"{self.name} needs {count}, {accepts}{' each' * (self.least > 1)}"
        return None

    def _takes(self, value: str) -> bool:
        if self.or_none and value == "None":
            return True
        if self.choices or not value:
            return value in self.choices
        with contextlib.suppress(ValueError):
            return self.kind(value) is not None
        return False


def options(command: type, prefix: str = "") -> Iterator[Option]:
    """Everything that can be said after a command's name."""
    hints = get_type_hints(command, include_extras=True)
    for field in fields(command):
        hint, marks = hints[field.name], []
        while get_origin(hint) is Annotated:
            hint, *more = get_args(hint)
            marks += more
        if _HIDDEN in marks:
            continue
        renamed = [mark.name for mark in marks if getattr(mark, "name", None) is not None]
        name = renamed[0] if renamed else field.name
        if is_dataclass(hint):
            assert isinstance(hint, type)
            yield from options(hint, f"{prefix}{name}." if name else prefix)
            continue
        name = (prefix if _POSITIONAL in marks else f"--{prefix}") + name.replace("_", "-")
        yield _option(name, hint, required=field.default is tyro.MISSING, repeated=_APPEND in marks)


def _option(name: str, hint: Any, required: bool, repeated: bool) -> Option:
    least = most = 1
    or_none = get_origin(hint) in (Union, UnionType)
    if or_none:
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) is tuple:
        hint, *others = get_args(hint)
        if others != [...]:
            least = most = 1 + len(others)
        elif not repeated:
            most = _MANY
    if hint is bool:
        least = most = 0
    choices = tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()
    return Option(name, str if choices else hint, least, most, choices, or_none, required, repeated)


def parse(
    commands: Mapping[str, type],
    arguments: Sequence[str],
    defaults: Callable[[Given], Mapping[str, Any]],
    description: str | None = None,
) -> tuple[Any, Given]:
    """The command that `arguments` name, one of `commands`, and what they give to it.

    `defaults` are the commands as they are where nothing is given to them; they may follow from
    what is.

    Raises:
        ValueError: a wrong request, in one sentence.
    """
    given = _read(commands, arguments)
    kinds: list[Any] = [
        Annotated[commands[name], tyro.conf.subcommand(name, default=default)]
        for name, default in defaults(given).items()
    ]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            union: Any = functools.reduce(operator.or_, kinds)
            return tyro.cli(
                union, args=list(arguments), prog=PROGRAM, description=description
            ), given
    except SystemExit as exit:
        if not exit.code:  # --help
            raise
        refusal = exit.__context__
    said, of = getattr(refusal, "message", None), str(getattr(refusal, "arg", ""))
    if said is None:
        raise ValueError(
            f"these words cannot be read together (see {PROGRAM} {arguments[0]} --help)"
        )
    # What a dataclass says of its field, "--epochs is 0", where its options have names such as
    # --classic.epochs; of the dataclass's place, config.classic.augmentation, only what is part of
    # these names.
    named = {
        part
        for option in options(commands[arguments[0]])
        for part in option.name[2:].split(".")[:-1]
    }
    raise ValueError(
        said.replace("--", "--" + "".join(f"{part}." for part in of.split(".") if part in named))
    )


def without(arguments: Sequence[str], left_out: Collection[str]) -> list[str]:
    """The words of a command line, of a command that has options only, but for some of these."""
    kept, leaving = list[str](), False
    for word in arguments:
        if _looks_like_option(word):
            leaving = word.partition("=")[0].replace("_", "-") in left_out
        if not leaving:
            kept.append(word)
    return kept


def _read(commands: Mapping[str, type], arguments: Sequence[str]) -> Given:
    """What `arguments` give to each option of the command they name. Raises ValueError for the
    first that is wrong."""
    if not arguments:
        raise ValueError(
            f"no command was given: give one of {', '.join(commands)} (see {PROGRAM} --help)"
        )
    command, *words = arguments
    given: dict[str, list[str]] = {}
    if command in _HELP:
        return given
    if command.startswith("-"):
        raise ValueError(
            f"{_quoted(command)} comes before the command: give one of {', '.join(commands)} first"
        )
    if command not in commands:
        hint = did_you_mean(command, commands, after=" ")
        raise ValueError(
            f"there is no command {_quoted(command)}: {hint}choose {', '.join(commands)}"
        )
    help_ = f"(see {PROGRAM} {command} --help)"
    known = list(options(commands[command]))
    named = {spelling: option for option in known for spelling in option.spellings}
    alone = [option for option in known if option.standing_alone]
    last: Option | None = None
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if word in _HELP:
            return given
        option: Option | None
        if _looks_like_option(word):
            if (option := named.get(name)) is None:
                raise ValueError(f"{_no_such_option(name, command, named, commands)}{help_}")
            values = [value] if equals else []
            while (
                not equals
                and words
                and len(values) < option.most
                and not _looks_like_option(words[0])
            ):
                values.append(words.pop(0))
            flag = option if equals else None
        else:
            option = next((one for one in alone if len(given.get(one.name, ())) < one.most), None)
            values, flag = [word], last if option is None else None
        if flag and flag.kind is bool:
            raise ValueError(
                f"{flag.name} takes no value: give {' or '.join(flag.spellings)} alone {help_}"
            )
        if option is None:
            takes = f"one {alone[0].name}" if alone else "no word that stands alone"
            raise ValueError(
                f"{_quoted(word)} is one word too many: {command} takes {takes} {help_}"
            )
        if option.standing_alone and option.name in given and last is not option:
            raise ValueError(
                f"{_quoted(word)} stands apart from the other {option.name}: give them together "
                f"{help_}"
            )
        if wrong := option.complaint(values):
            raise ValueError(f"{wrong} {help_}")
        given.setdefault(option.name, []).extend(values or [name])
        last = option
    if missing := [option.name for option in known if option.required and option.name not in given]:
        it = "it" if len(missing) == 1 else "them"
        raise ValueError(f"no {' and no '.join(missing)} was given: {command} needs {it} {help_}")
    return given


def _looks_like_option(word: str) -> bool:
    """-1 and -inf are values."""
    return bool(re.match(r"--|-(?!inf\b|nan\b)[A-Za-z]", word))


def _no_such_option(
    name: str, command: str, named: Mapping[str, Option], commands: Mapping[str, type]
) -> str:
    elsewhere = [
        other
        for other, kind in commands.items()
        for option in options(kind)
        if name in option.spellings
    ]
    wrong, near = f"{command} has no option {_quoted(name)}", list(named)
    if elsewhere:  # spelt right, so only another number of it can be meant: --seed and --seeds
        wrong = f"{name} is no option of {command}, only of {', '.join(elsewhere)}"
        near = [option for option in named if option.rstrip("s") == name.rstrip("s")]
    hint = did_you_mean(name, near, after=" ")
    return f"{wrong}{': ' + hint if hint else ' '}"


def _quoted(word: str) -> str:
    return repr(one_line(word, 80)) if word.isprintable() else one_line(repr(word), 80)


# make

_OF_THE_MAKEFILE = ("PYTHON", "VENV", "TORCH_INDEX")
_FROM_ENVIRONMENT = ("PRESET", "SEED", "SEEDS", "DEVICE")
_YES_NO = {
    **dict.fromkeys(("1", "yes", "true", "on"), True),
    **dict.fromkeys(("0", "no", "false", "off"), False),
}


def from_make(
    commands: Mapping[str, type], arguments: Sequence[str], environment: Mapping[str, str]
) -> list[str]:
    """The command line that a recipe of the Makefile means, `arguments` before make's words and
    variables were read.

    PRESET=pocket SEEDS="0 1" becomes --preset=pocket --seeds 0 1, DRY_RUN=yes --dry-run, DRY_RUN=no
    --no-dry-run; N, IMAGE and the words after the target, which the Makefile puts into WORDS, are
    the words that stand alone. An option in the environment yields to the recipe, and the recipe to
    one that was given to make.

    Raises:
        ValueError: a flag that is neither yes nor no.
    """
    command, *recipe = arguments
    known = {option.name.removeprefix("--"): option for option in options(commands[command])}
    alone = [option for option in known.values() if option.standing_alone]
    words = environment.get("WORDS", "").split()
    around = []
    for variable in _FROM_ENVIRONMENT:
        option = known.get(variable.lower())
        if option and environment.get(variable):
            around += _in_words(option, variable, environment[variable])
    for variable, value in _variables(environment.get("MAKEFLAGS", "")).items():
        name = variable.lower().replace("_", "-")
        if variable in _OF_THE_MAKEFILE or (command, variable) == ("train", "GPUS"):
            continue
        option = known.get(name)
        if alone and name in ("n", alone[0].name, alone[0].name.removesuffix("s")):
            words += _in_words(alone[0], variable, value)
        elif option:
            recipe += _in_words(option, variable, value)
        else:
            recipe.append(f"--{name}={value}")
    return [command, *words, *around, *recipe]


def _variables(flags: str) -> dict[str, str]:
    """The variables of make's own command line by name, from MAKEFLAGS as a recipe's environment
    has it.

    There make (3.81 as 4.3) puts a backslash before each blank and each backslash of them, writes $
    twice, and expands nothing; they come last first, after "--", which 3.81 leaves out where there
    are no flags.
    """
    words = re.findall(r"(?:\\.|[^\\ \t])+", flags, re.DOTALL)
    given = words[words.index("--") + 1 :] if "--" in words else words
    pairs = (
        re.sub(r"\\(.)|\$(\$)", r"\1\2", word, flags=re.DOTALL).partition("=")
        for word in reversed(given)
    )
    return {
        name.rstrip(":"): value
        for name, equals, value in pairs
        if equals and not name.startswith("-")
    }


def _in_words(option: Option, variable: str, value: str) -> list[str]:
    """An option as the words of a command line, from the value that a variable has."""
    if option.kind is bool:
        if value not in _YES_NO:
            raise ValueError(
                f"{variable} is {_quoted(value)}: give {variable}=yes or {variable}=no"
            )
        return [option.spellings[0 if _YES_NO[value] else 1]]
    values = [value]
    if option.most > 1 or option.repeated:
        values = value.split()
        if (
            option.kind is Path
        ):  # a path that is there, blanks and all, or several, patterns such as photos/*.jpg too
            values = (
                [value]
                if Path(value).exists()
                else [p for v in values for p in sorted(glob.glob(v)) or [v]]
            )
    if option.standing_alone:
        return values
    return (
        [option.name, *values]
        if option.most > 1
        else [f"{option.name}={value}" for value in values]
    )
