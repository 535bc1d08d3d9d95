"""A pipeline's command line, under `pipelines.local` and `pipelines.submit` alike: every parameter of the table is an option of
its own, though the pipeline itself takes most of them in `overrides`.
"""

import inspect
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import cyclopts
from kfp.dsl.graph_component import GraphComponent

from components import cli, parameters
from components.errors import UserError, exit_codes
from components.resolve import pretraining, stage
from components.resolve.stage import KNOWN, OF_ONE_RUN

LISTS = ("--tasks", "--seeds")


def command_line(name: str, help: str, pipelines: Mapping[str, GraphComponent]) -> cyclopts.App:
    """A command for each pipeline. What is asked besides is the signature of the app's `meta.default`."""
    app = cyclopts.App(name=name, help=help, version_flags=[], help_format="plaintext")
    app.default_parameter = cyclopts.Parameter(consume_multiple=True, negative_iterable=())
    app.meta.group_parameters = cyclopts.Group("Where", sort_key=-1)
    for pipeline_name, pipeline in pipelines.items():
        app.command(_command_of(pipeline), name=pipeline_name)
    return app


def _command_of(pipeline: GraphComponent) -> Any:
    function, offered = pipeline.pipeline_func, inspect.signature(pipeline.pipeline_func).parameters
    if "overrides" not in offered:
        return function

    def command(**given: Any) -> None:
        """Only its signature counts."""

    command.__name__, command.__doc__ = function.__name__, inspect.getdoc(function).partition("\n\nArgs:")[0]  # type: ignore[union-attr]
    if pipeline.name == "pretrain":
        return cli.taking([*offered, *pretraining.KNOWN])(command)
    left_out = OF_ONE_RUN if "tasks" in offered else ()
    return cli.taking([name for name in (*offered, *KNOWN) if name not in left_out])(command)


def arguments_of(pipeline: GraphComponent, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given as the pipeline takes it: its own parameters by name, all others in `overrides`.

    Raises:
        UserError: a parameter that is none, or that does not go with the others, as components.resolve would raise it.
    """
    offered = inspect.signature(pipeline.pipeline_func).parameters
    own = {name: parameters.check(name, value) for name, value in given.items() if name in offered}
    if "overrides" not in offered:
        return own
    defaults = {name: it.default for name, it in offered.items() if it.default is not it.empty}
    check = pretraining.check if pipeline.name == "pretrain" else stage.check
    check({**defaults, **{name: value for name, value in given.items() if name != "num_parts"}})
    others = {name: value for name, value in given.items() if name not in offered}
    return own | ({"overrides": {**own.get("overrides", {}), **others}} if others else {})


def parsed(app: cyclopts.App, tokens: Iterable[str]) -> tuple[str, dict[str, Any]] | None:
    """The pipeline's name and what is given; None where it was help that was asked for, and printed."""
    function, bound, _ = app.parse_args(without_commas(tokens), exit_on_error=False, print_error=False)
    name = function.__name__.replace("_", "-")
    if name in app.resolved_commands():
        return name, dict(bound.arguments)
    function(*bound.args, **bound.kwargs)
    return None


def without_commas(tokens: Iterable[str]) -> list[str]:
    """`--tasks rte,cola` and `--tasks=rte,cola` as `--tasks rte cola`: unlike paths, tasks and seeds have no commas."""
    spread: list[str] = []
    option = ""
    for token in tokens:
        if token.startswith("--"):
            option, _, value = token.partition("=")
            spread += [option, *filter(None, value.split(","))] if option in LISTS else [token]
        else:
            spread += filter(None, token.split(",")) if option in LISTS else [token]
    return spread


def run(app: cyclopts.App) -> None:
    """Heed the command line; exit 2 with one line where it is wrong."""
    with exit_codes():
        try:
            app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
        except cyclopts.CycloptsError as error:
            raise UserError(f"{' '.join(str(error).split())} See {app.name[0]} --help.") from None
