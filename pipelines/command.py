"""A pipeline's signature is its command line, under `pipelines.local` and `pipelines.submit` alike."""

import inspect
import sys
from collections.abc import Iterable, Mapping

import cyclopts
from kfp.dsl.graph_component import GraphComponent

from components.errors import UserError, exit_codes

LISTS = ("--tasks", "--seeds")


def command_line(name: str, help: str, pipelines: Mapping[str, GraphComponent]) -> cyclopts.App:
    """A command for each pipeline. What is asked besides is the signature of the app's `meta.default`."""
    app = cyclopts.App(name=name, help=help, version_flags=[], help_format="plaintext")
    app.default_parameter = cyclopts.Parameter(consume_multiple=True, negative_iterable=())
    app.meta.group_parameters = cyclopts.Group("Where", sort_key=0)
    for pipeline_name, pipeline in pipelines.items():
        app.command(pipeline.pipeline_func, name=pipeline_name)
    return app


def parsed(app: cyclopts.App, tokens: Iterable[str]) -> tuple[str, inspect.BoundArguments] | None:
    """The pipeline's name and the arguments given; None where it was help that was asked for, and printed."""
    function, bound, _ = app.parse_args(without_commas(tokens), exit_on_error=False, print_error=False)
    name = function.__name__.replace("_", "-")
    if name in app.resolved_commands():
        return name, bound
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
