"""A Kubernetes API server that replays recorded training jobs, many times faster, and fails when it is told to.

    with replay("01-success-1master-2workers", speed=50) as cluster:
        ...  # a launcher pointed at cluster.url creates a PyTorchJob, and sees what was recorded

Creating a job starts its recording's clock. The n-th job that is created follows the n-th scenario, the last one for ever.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from answering import Answering
from apiserver import Cluster


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    cluster: Cluster

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        if not isinstance(error, ConnectionError):  # a client that went away is no fault of ours
            assert error
            self.cluster.errors.append(error)


@contextmanager
def replay(*scenarios: str, speed: float = 50) -> Iterator[Cluster]:
    """Serve on a free port of this machine while the block lasts."""
    cluster = Cluster(scenarios, speed)
    server = _Server(("127.0.0.1", 0), Answering)
    server.cluster = cluster
    cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        with cluster.objects.changed:
            cluster.closing = True
            cluster.objects.changed.notify_all()
        server.shutdown()
        server.server_close()
        thread.join()
    assert not cluster.errors, cluster.errors


@contextmanager
def refusing(scenario: str, answer: str) -> Iterator[Cluster]:
    """A cluster that answers every creation of a job with that recorded answer, e.g. "18-invalid-manifests", "two-masters"."""
    with replay("01", speed=50) as cluster:
        cluster.refuse(scenario, answer)
        yield cluster
