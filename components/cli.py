"""A stage's signature is its command line: `python -m components.<stage>`."""

import sys
from collections.abc import Callable
from typing import Any

import cyclopts

from components.errors import UserError, exit_codes


def run(function: Callable[..., Any], name: str) -> Any:
    """Call `function` with the command line's arguments; exit 2 with one line where they are wrong.

    Args:
        function: Typed, with a docstring that describes its parameters.
        name: How it is called, for the help text.
    """
    app = cyclopts.App(
        name=name,
        version_flags=[],
        help_format="plaintext",
        result_action="return_value",
        default_parameter=cyclopts.Parameter(consume_multiple=True, negative_iterable=()),
    )
    app.default(function)
    with exit_codes():
        try:
            return app(sys.argv[1:], exit_on_error=False, print_error=False)
        except cyclopts.CycloptsError as error:
            raise UserError(f"{' '.join(str(error).split())} See {name} --help.") from None
