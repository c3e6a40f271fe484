"""Words of a command line to a command's dataclass, by tyro; and for words that tyro refuses, one sentence why.

What is an option, and what it accepts, is read off the dataclasses, so that no list of options is kept by hand.
"""

import contextlib
import difflib
import functools
import io
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

PROGRAM = "runner.py"

_MANY = 10_000
_POSITIONAL, _APPEND, _HIDDEN = (
    get_args(marked)[1] for marked in (tyro.conf.Positional[str], tyro.conf.UseAppendAction[str],
                                       Annotated[str, tyro.conf.Suppress]))  # fmt: skip


@dataclass(frozen=True)
class Option:
    """An option of a command, or a word of it that stands alone, as the command's dataclass declares it."""

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

    @property
    def standing_alone(self) -> bool:
        return not self.name.startswith("--")

    @property
    def accepts(self) -> str:
        """What each of its values may be."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = {int: "a whole number", float: "a number", Path: "a path"}.get(self.kind, "a word")
        return words + " or None" * self.or_none

    def takes(self, value: str) -> bool:
        if self.or_none and value == "None":
            return True
        if self.choices:
            return value in self.choices
        try:
            self.kind(value)
        except ValueError:
            return False
        return True

    @property
    def spellings(self) -> tuple[str, ...]:
        """A flag can be negated: --trial and --no-trial, --classic.decay-all and --classic.no-decay-all."""
        if self.kind is not bool:
            return (self.name,)
        head, dot, last = self.name.removeprefix("--").rpartition(".")
        return self.name, f"--{head}{dot}no-{last}"


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
        yield _option(name, hint, required=field.default is tyro.MISSING, one_by_one=_APPEND in marks)


def _option(name: str, hint: Any, required: bool, one_by_one: bool) -> Option:
    least = most = 1
    or_none = False
    if get_origin(hint) in (Union, UnionType):
        or_none = NoneType in get_args(hint)
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) is tuple:
        hint, *others = get_args(hint)
        least = most = 1 + len(others)
        if others == [...]:
            least, most = (1, 1) if one_by_one else (0, _MANY)
    if hint is bool:
        least = most = 0
    if get_origin(hint) is Literal:
        return Option(name, str, least, most, tuple(map(str, get_args(hint))), or_none, required)
    return Option(name, hint, least, most, (), or_none, required)


def parse(commands: Mapping[str, Any], arguments: Sequence[str], description: str | None = None) -> Any:
    """The command that `arguments` name, one of `commands`: by name, with the defaults of its options.

    Raises:
        ValueError: a wrong request, in one sentence.
    """
    kinds: list[Any] = [Annotated[type(it), tyro.conf.subcommand(name, default=it)] for name, it in commands.items()]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            union: Any = functools.reduce(operator.or_, kinds)
            return tyro.cli(union, args=list(arguments), prog=PROGRAM, description=description)
    except SystemExit as exit:
        if not exit.code:  # --help
            raise
        known, said = {name: list(options(type(it))) for name, it in commands.items()}, complaint.getvalue()
        why = _wrong_word(known, arguments) or _wrong_values(known, exit.__context__) or _flattened(said)
    raise ValueError(why)


def value_of(option: str, arguments: Sequence[str]) -> str | None:
    """The last value that `arguments` give to `option`."""
    found = None
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            found = value if equals else next(iter(arguments[place + 1 :]), None)
    return found


def one_line(text: object, most: int = 1000) -> str:
    """`text` without line breaks and other control characters, and without the middle if it is very long."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(text).split()))
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"


def _wrong_word(commands: Mapping[str, Sequence[Option]], arguments: Sequence[str]) -> str | None:
    """The first thing wrong with `arguments`, or None where nothing is found."""
    if not arguments:
        return f"no command was given: give one of {', '.join(commands)} (see {PROGRAM} --help)"
    command, *words = arguments
    if command.startswith("-"):
        return f"{_quoted(command)} comes before the command: give one of {', '.join(commands)} first"
    if command not in commands:
        return f"there is no command {_quoted(command)}: {_nearest(command, commands)}choose {', '.join(commands)}"
    help_ = f"(see {PROGRAM} {command} --help)"
    named = {spelling: option for option in commands[command] for spelling in option.spellings}
    alone = [option for option in commands[command] if option.standing_alone]
    room, last_flag, seen = sum(option.most for option in alone), None, set()
    place, apart = 0, False
    while place < len(words):
        name, equals, value = words[place].partition("=")
        place += 1
        if not _looks_like_option(name):
            word = name + equals + value
            if room == 0 and last_flag is not None:
                return f"{last_flag.name} takes no value: give {' or '.join(last_flag.spellings)} alone {help_}"
            if room == 0:
                takes = f"one {alone[0].name}" if alone else "no word that stands alone"
                return f"{_quoted(word)} is one word too many: {command} takes {takes} {help_}"
            if apart:
                return f"{_quoted(word)} stands apart from the other {alone[0].name}: give them together {help_}"
            seen |= {option.name for option in alone}
            room -= 1
            continue
        name = name.replace("_", "-")
        option = named.get(name)
        if option is None:
            return _no_such_option(name, command, named, commands)
        seen.add(option.name)
        apart = any(option.name in seen for option in alone)
        values = [value] if equals else []
        if option.kind is bool:
            if equals:
                return f"{option.name} takes no value: give {' or '.join(option.spellings)} alone {help_}"
            last_flag = option
            continue
        last_flag = None
        while not equals and place < len(words) and len(values) < option.most and not _looks_like_option(words[place]):
            values.append(words[place])
            place += 1
        for one in values:
            if not option.takes(one):
                hint = _nearest(one, option.choices)
                return f"{name}: {_quoted(one)} is not {option.accepts}{': ' + hint if hint else ' '}{help_}"
        if len(values) < option.least:
            count = "a value" if option.least == 1 else f"{option.least} values"
            return f"{name} needs {count}, {option.accepts}{' each' * (option.least > 1)} {help_}"
    missing = [option.name for option in commands[command] if option.required and option.name not in seen]
    return f"no {' and no '.join(missing)} was given: {command} needs {'it' if len(missing) == 1 else 'both'} {help_}" \
        if missing else None  # fmt: skip


def _wrong_values(commands: Mapping[str, Sequence[Option]], refusal: BaseException | None) -> str | None:
    """What a nested dataclass said of its values, if that is why tyro refused: "--epochs is 0" of `classic`."""
    said = getattr(refusal, "__context__", None)
    if not isinstance(said, ValueError) or not str(said).startswith("--"):
        return None
    # Of the dataclass's place, config.classic.augmentation, only what is part of options' names: classic.
    named = {part for known in commands.values() for option in known for part in option.name[2:].split(".")[:-1]}
    prefix = "".join(f"{part}." for part in str(getattr(refusal, "arg", "")).split(".") if part in named)
    return str(said).replace("--", f"--{prefix}")


def _looks_like_option(word: str) -> bool:
    """-1 and -inf are values."""
    return bool(re.match(r"--\S|-(?!inf\b|nan\b)[A-Za-z]", word))


def _no_such_option(
    name: str, command: str, named: Mapping[str, Option], commands: Mapping[str, Sequence[Option]]
) -> str:
    elsewhere = [other for other, known in commands.items() if any(name in option.spellings for option in known)]
    wrong, near = f"{command} has no option {_quoted(name)}", list(named)
    if elsewhere:  # spelt right, so only another number of it can be meant: --seed and --seeds
        wrong = f"{name} is no option of {command}, only of {', '.join(elsewhere)}"
        near = [option for option in named if option.rstrip("s") == name.rstrip("s")]
    hint = _nearest(name, near)
    return f"{wrong}{': ' + hint if hint else ' '}(see {PROGRAM} {command} --help)"


def _nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """The words "did you mean 'this'? " or none."""
    near = difflib.get_close_matches(word.lower(), list(known), 1, 0.5)
    return f"did you mean {near[0]!r}? " if near else ""


def _quoted(word: str) -> str:
    return repr(one_line(word, 80)) if word.isprintable() else one_line(repr(word), 80)


def _flattened(complaint: str) -> str:
    """tyro's boxed complaint, "│ Error parsing --x: why │ ...", as a line of text: for what the others cannot see."""
    lines = [re.sub(r"[─│╭╮╰╯]", " ", line).strip() for line in complaint.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    text = re.split(r" (?:For full helptext|Argument helptext|Perhaps you meant|Arguments are applied)", text)[0]
    return text.strip().rstrip(".")
