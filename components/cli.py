"""A stage's signature is its command line: `python -m components.<stage>`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cyclopts

from components.errors import UserError, exit_codes


def run(function: Callable[..., Any], name: str) -> Any:
    """Call `function` with the command line's arguments; exit 2 with one line where they are wrong.

    Args:
        function: Typed, with a docstring that describes its parameters.
        name: How it is called, for the help text.
    """
    with exit_codes(), _explained(name):
        return _app(function, name)(sys.argv[1:], exit_on_error=False, print_error=False)


def arguments(function: Callable[..., Any], name: str, flags: Sequence[str]) -> dict[str, Any]:
    """What `run` would call `function` with if the command line were `flags`, defaults included.

    Raises:
        UserError: they are wrong.
    """
    with _explained(name):
        _, bound, _ = _app(function, name).parse_args(flags, exit_on_error=False, print_error=False)
    bound.apply_defaults()
    return dict(bound.arguments)


def _app(function: Callable[..., Any], name: str) -> cyclopts.App:
    app = cyclopts.App(
        name=name,
        version_flags=[],
        help_format="plaintext",
        result_action="return_value",
        default_parameter=cyclopts.Parameter(consume_multiple=True, negative_iterable=()),
    )
    app.default(function)
    return app


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except cyclopts.CycloptsError as error:
        raise UserError(f"{' '.join(str(error).split())} See {name} --help.") from None
