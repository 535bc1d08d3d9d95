"""Functions that take what another function takes, without saying it again."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


def forwarding_to(target: Function, *without: str) -> Callable[[Function], Function]:
    """Give a function, in place of its last argument, `**forwarded`, the parameters of `target` that are not in `without`.

    KFP and the command line read a signature: this writes it, with the target's names, types and defaults.
    """

    def decorate(function: Function) -> Function:
        own = list(inspect.signature(function).parameters.values())[:-1]
        taken = {*without, *(parameter.name for parameter in own)}
        others = [it for it in inspect.signature(target).parameters.values() if it.name not in taken]
        signature = inspect.signature(function).replace(parameters=[*own, *others])

        @functools.wraps(function)
        def forwarding(*values: Any) -> Any:
            return function(**dict(zip(signature.parameters, values, strict=True)))

        forwarding.__signature__ = signature  # type: ignore[attr-defined]
        forwarding.__annotations__ = {it.name: it.annotation for it in (*own, *others)} | {
            "return": signature.return_annotation
        }
        return forwarding

    return decorate
