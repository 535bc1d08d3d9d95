"""The tree as OpenLineage events (openlineage.io, spec 2): a job run for each stage, its datasets named by where they lay."""

import uuid
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import TryAgainError, UserError
from components.lineage.tree import Node

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent
    from openlineage.client.transport import Transport

NAMESPACE = "adapt"
PRODUCER = "https://github.com/OpenLineage/OpenLineage/tree/main/client/python"


def send(tree: Node, to: str) -> int:
    """Send a START and a COMPLETE for every stage of the tree, the earliest first. Returns how many events that is.

    Args:
        to: http:// or https:// address of a server, or a file to append to.

    Raises:
        UserError: openlineage-python is not installed.  TryAgainError: the server does not take an event.
    """
    try:
        from openlineage.client import OpenLineageClient
        from openlineage.client.transport.file import FileConfig, FileTransport
        from openlineage.client.transport.http import HttpConfig, HttpTransport
    except ImportError:
        raise UserError("openlineage-python is not installed: pip install openlineage-python") from None
    transport: Transport
    if to.startswith(("http://", "https://")):
        transport = HttpTransport(HttpConfig(url=to))
    else:
        transport = FileTransport(FileConfig(log_file_path=str(Path(to).resolve()), append=True))
    client = OpenLineageClient(transport=transport)
    stages = [node for node in tree.walk() if node.manifest][::-1]  # inputs first, where two were made in the same second
    events = [event for node in sorted(stages, key=lambda node: node.manifest["made_by"]["created"]) for event in _events(node)]
    for event in events:
        try:
            client.emit(event)
        except Exception as error:  # whatever the transport's library raises
            raise TryAgainError(f"{to} does not take OpenLineage events: {' '.join(str(error).split())[:160]}") from None
    return len(events)


def _events(node: Node) -> "list[RunEvent]":
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import DatasetFacet, dataset_version_dataset

    def facets(part: Node) -> dict[str, DatasetFacet]:
        return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(part.digest)} if part.digest else {}

    manifest = node.manifest
    ended = datetime.fromisoformat(manifest["made_by"]["created"])
    started = ended - timedelta(seconds=manifest["seconds"])
    # The same work is the same run, however often it is told.
    run_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{NAMESPACE}/{manifest['stage']}/{node.digest}/{ended.isoformat()}"))
    inputs = [InputDataset(_namespace(child.uri), child.uri, facets=facets(child)) for child in node.children]
    outputs = [OutputDataset(_namespace(node.uri), node.uri, facets=facets(node))]
    event = partial(RunEvent, run=Run(run_id), job=Job(NAMESPACE, manifest["stage"]), producer=PRODUCER, inputs=inputs)
    return [
        event(eventType=RunState.START, eventTime=started.isoformat()),
        event(eventType=RunState.COMPLETE, eventTime=ended.isoformat(), outputs=outputs),
    ]


def _namespace(uri: str) -> str:
    """OpenLineage's naming: `file` for paths, else the scheme."""
    return "file" if uri.startswith("/") else uri.partition(":")[0]
