"""How a pipeline ends on a cluster: clean_up comes last, whatever happened. kfp's local runner does without."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kfp import dsl

from components.clean_up.component import clean_up

_on_cluster: ContextVar[bool] = ContextVar("on_cluster", default=False)


@contextmanager
def on_cluster() -> Iterator[None]:
    """Within the block pipelines are compiled for a cluster."""
    token = _on_cluster.set(True)
    try:
        yield
    finally:
        _on_cluster.reset(token)


@contextmanager
def cleaned_up(name: str, experiment: Any, overrides: Any) -> Iterator[None]:
    """The steps after which clean_up comes, on a cluster. KFP lets none of their outputs out."""
    if not _on_cluster.get():
        yield
        return
    last = clean_up(experiment=experiment, overrides=overrides).set_caching_options(enable_caching=False)
    with dsl.ExitHandler(last, name=name):
        yield
