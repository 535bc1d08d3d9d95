"""A pipeline's signature is its components', said once."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from kfp.dsl.python_component import PythonComponent

from components import parameters

Function = Callable[..., Any]


def taking(*components: PythonComponent, without: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Give a function, in place of its last argument, `**given`, the parameters of components, with the table's defaults.

    KFP reads the signature that this writes. What a component has a default for is not for the pipeline to give.
    """

    def decorate(function: Function) -> Function:
        own = list(inspect.signature(function).parameters.values())[:-1]
        taken = {*without, *(it.name for it in own)}
        others = {}
        for component in components:
            inputs = component.component_spec.inputs or {}
            for it in inspect.signature(component.python_func).parameters.values():
                if it.name in inputs and it.name not in taken and it.default is it.empty:
                    others[it.name] = it.replace(default=parameters.default(it.name))
        taken_over = sorted(others.values(), key=lambda it: it.default is not it.empty)
        signature = inspect.signature(function).replace(parameters=[*own, *taken_over])

        @functools.wraps(function)
        def called(*values: Any) -> Any:
            return function(**dict(zip(signature.parameters, values, strict=True)))

        called.__signature__ = signature  # type: ignore[attr-defined]
        annotations = {name: it.annotation for name, it in signature.parameters.items()}
        called.__annotations__ = annotations | {"return": signature.return_annotation}
        return parameters.documented(called)

    return decorate
