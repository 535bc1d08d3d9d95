"""What a stage is given: options of its command line, or all of its settings as one JSON text. Both are written from the table
of parameters and from the dataclasses that use them.
"""

import dataclasses
import difflib
import functools
import inspect
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin

import cyclopts

from components import parameters
from components.errors import UserError, exit_codes
from components.image import take_mounted_settings

URI = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")
"""As pathlib leaves it."""

Function = TypeVar("Function", bound=Callable[..., Any])
Made = TypeVar("Made")


def run(function: Callable[..., Any], name: str) -> Any:
    """Call `function` with the command line's arguments; exit 2 with one line where they are wrong.

    Args:
        function: Typed, with a docstring that describes its parameters.
        name: How it is called, for the help text.
    """
    take_mounted_settings()
    with exit_codes(), _explained(name):
        return _app(function, name)(sys.argv[1:], exit_on_error=False, print_error=False)


def arguments(function: Callable[..., Any], name: str, flags: Sequence[str]) -> dict[str, Any]:
    """What `run` would call `function` with if the command line were `flags`.

    Raises:
        UserError: they are wrong.
    """
    with _explained(name):
        _, bound, _ = _app(function, name).parse_args(flags, exit_on_error=False, print_error=False)
    return dict(bound.arguments)


def _app(function: Callable[..., Any], name: str) -> cyclopts.App:
    app = cyclopts.App(
        name=name,
        version_flags=[],
        help_format="plaintext",
        result_action="return_value",
        default_parameter=cyclopts.Parameter(consume_multiple=True, negative_iterable=()),
    )
    app.default(_on_this_machine(function))
    return app


def _on_this_machine(function: Callable[..., Any]) -> Callable[..., Any]:
    """Folders and files are: of s3://BUCKET pathlib would make s3:/BUCKET, which is one as well."""

    @functools.wraps(function)
    def called(*args: Any, **given: Any) -> Any:
        for name, value in given.items():
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, Path) and (uri := URI.match(str(path))):
                    place = f"{uri[1]}://{uri[2]}"
                    raise UserError(f"--{name.replace('_', '-')} is {place}: give a path on this machine")
        return function(*args, **given)

    return called


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except cyclopts.CycloptsError as error:
        raise UserError(f"{' '.join(str(error).split())} See {name} --help.") from None


# --- signatures ---


def names_of(*users: type | Collection[str]) -> tuple[str, ...]:
    """The parameters that dataclasses use, or that collections name, each once, in the table's order."""
    used = {name for user in users for name in (_fields(user) if isinstance(user, type) else user)}
    return tuple(name for name in parameters.groups() if name in used)


def taking(*users: type | Collection[str]) -> Callable[[Function], Function]:
    """Give a function with `**given` the parameters of `users` as its signature, with the table's types, defaults and texts.

    Only what a caller gives is in `given`, and of that not what is unset. A TypeError where it is called with any other name.
    """

    def decorate(function: Function) -> Function:
        own = inspect.signature(function)
        first = [it for it in own.parameters.values() if it.kind is not it.VAR_KEYWORD]
        may_lack = "settings" in own.parameters  # which then has it
        taken = [_parameter(name, may_lack) for name in names_of(*users) if name not in own.parameters]
        signature = own.replace(parameters=[*(it.replace(annotation=_grouped(it)) for it in first), *taken])

        @functools.wraps(function)
        def called(*args: Any, **given: Any) -> Any:
            bound = signature.bind_partial(*args, **given).arguments
            known = {name: it for name, it in bound.items() if name in own.parameters or not parameters.is_unset(name, it)}
            return function(**known)

        called.__signature__ = signature  # type: ignore[attr-defined]
        called.__annotations__ = {it.name: it.annotation for it in signature.parameters.values()}
        return parameters.documented(called)  # type: ignore[return-value]

    return decorate


def _parameter(name: str, may_lack: bool) -> inspect.Parameter:
    default, hint = parameters.default(name), parameters.hints()[name]
    if may_lack and default is inspect.Parameter.empty:
        default, hint = None, hint | None
    if get_origin(hint) is dict:  # as JSON, whose numbers stay numbers
        hint = str | hint
    made = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
    return made.replace(annotation=_grouped(made))


def _grouped(parameter: inspect.Parameter) -> Any:
    """Its type, and for the help text the heading that the table has it under."""
    headings = list(dict.fromkeys(parameters.groups().values()))
    if parameter.name not in parameters.groups():
        return parameter.annotation
    heading = parameters.groups()[parameter.name]
    group = cyclopts.Group(heading.capitalize(), sort_key=headings.index(heading))
    return Annotated[parameter.annotation, cyclopts.Parameter(group=group)]


# --- settings as a text ---


def write(*parts: Any) -> str:
    """Dataclasses, or mappings, as one JSON text."""
    merged: dict[str, Any] = {}
    for part in parts:
        merged |= part if isinstance(part, Mapping) else {name: getattr(part, name) for name in _fields(type(part))}
    return json.dumps(merged, separators=(",", ":"))


def with_changes(text: str, of_run: Mapping[str, Any]) -> str:
    """A settings text with the values that are another in this run of a suite."""
    return write(json.loads(text), of_run) if of_run else text


def read(text: str, *users: type | Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """The values of a settings text, each checked by itself.

    Args:
        users: Dataclasses, or collections of names: of these each must be there.
        optional: Names that may be there.

    Raises:
        UserError: no JSON object, a name that is unknown or missing, a value of another type or out of range.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"settings is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"settings is {text[:40]!r}: give a JSON object")
    needed = names_of(*users)
    check_names(values, (*needed, *optional), "settings")
    if missing := [name for name in needed if name not in values]:
        raise UserError(f"settings has no {', '.join(missing)}: give all that components.resolve writes for this stage")
    return {name: parameters.check(name, value) for name, value in values.items()}


def check_names(given: Collection[str], known: Collection[str], where: str) -> None:
    """UserError where a name is not known, with the one that was perhaps meant."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise UserError(f"{where} has {name!r}, which is no parameter here: {meant}")


def made(kind: type[Made], settings: str, options: Mapping[str, Any], *also: type) -> Made:
    """A stage's settings, from a text or from options.

    Args:
        also: What the text may hold for the step around the stage.

    Raises:
        UserError: both are given, or one of them is wrong.
    """
    return pick(kind, given(settings, options, kind, optional=names_of(*also)))


def given(settings: str, options: Mapping[str, Any], *users: type, optional: Collection[str] = ()) -> Mapping[str, Any]:
    """The options, or what the settings text says: one of the two."""
    if settings and options:
        raise UserError(f"settings and {', '.join(options)} are both given: give one or the other")
    return read(settings, *users, optional=optional) if settings else options


def parts(settings: str, *kinds: type, optional: Collection[str] = ()) -> list[Any]:
    """The text of a step as one dataclass of each kind.

    Raises:
        UserError: it is not whole, or something in it is wrong.
    """
    values = read(settings, *kinds, optional=optional)
    return [pick(kind, values) for kind in kinds]


def pick(kind: type[Made], values: Mapping[str, Any]) -> Made:
    """A dataclass with its fields out of `values`, which may hold more; what is absent has the table's default.

    Raises:
        UserError: one without a default is absent.
    """
    fields = {name: values[name] if name in values else parameters.default(name) for name in _fields(kind)}
    if missing := [name for name, value in fields.items() if value is inspect.Parameter.empty]:
        options = " ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise UserError(f"{', '.join(missing)} is not given: give {options}")
    return kind(**fields)


def _fields(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.init and field.name in parameters.hints()]
