"""Look at all that a pipeline run will need, before there is one: a line for each, and what to do about it."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from kubernetes.utils.quantity import parse_quantity

from components import parameters
from components.doctor import checks, controller, room, services
from components.doctor.account import acting_as
from components.doctor.finding import Finding, Row, as_json, row, row_within
from components.doctor.pods import LABELS
from components.doctor.rendezvous import meet
from components.errors import UserError
from components.image import TRAIN_IMAGE
from components.launch.api import Api, Patience, connect
from components.launch.job import Job
from components.parameters import JobKind, check_choice, documented

PATIENCE = Patience(total=5.0, answer=10.0, longest=2.0)
SECONDS = 60.0  # for each check


@documented
def doctor(
    *,
    namespace: str = parameters.namespace,
    kind: JobKind = parameters.kind,
    train_image: str = parameters.train_image,
    training_runtime: str = parameters.training_runtime,
    service_account: str = parameters.service_account,
    uri: str = parameters.uri,
    tracking_uri: str = parameters.tracking_uri,
    num_workers: int = parameters.num_workers,
    num_gpus_per_worker: int = parameters.num_gpus_per_worker,
    cpu_per_worker: str = parameters.cpu_per_worker,
    memory_per_worker: str = parameters.memory_per_worker,
    rendezvous: bool = parameters.rendezvous,
    json: bool = parameters.json,
) -> list[Row]:
    """Check what a pipeline run needs: the cluster, your rights, storage, MLflow. Nothing is left behind.

    Raises:
        UserError: the question itself is wrong. What the checks find is in the rows.
    """
    check_choice("kind", kind, JobKind)
    for name, quantity in (("cpu_per_worker", cpu_per_worker), ("memory_per_worker", memory_per_worker)):
        try:
            parse_quantity(quantity or 0)
        except ValueError:
            raise UserError(f"{name} is {quantity!r}: give it as Kubernetes writes it, such as 500m, 4 or 16Gi") from None
    job = Job(
        name="adapt-doctor",
        image=train_image or TRAIN_IMAGE,
        command=["true"],
        labels=LABELS,
        num_workers=num_workers,
        num_processes=num_gpus_per_worker or 1,
        num_gpus=num_gpus_per_worker,
        cpu=cpu_per_worker,
        memory=memory_per_worker,
        runtime=training_runtime,
    )

    def rows() -> Iterator[Row]:
        api: Api | None = None
        account: Api | None = None

        def reach() -> Finding:
            nonlocal api, account
            api = connect(namespace, PATIENCE)
            answers = checks.answers(api)
            account = acting_as(api, service_account) if service_account else None
            by_token = f"; then as {service_account}, by a token for ten minutes, where that may look" if account else ""
            return replace(answers, found=f"{answers.found}{by_token}")

        first = row_within(SECONDS, "API", reach)
        yield first
        if api is not None and first.status != "failed":
            as_account = looks(account, kind, job, service_account, by_token=True) if account else {}
            for check, look in looks(api, kind, job, service_account).items():
                seen = row_within(SECONDS, check, as_account.get(check, look))
                yield row_within(SECONDS, check, look) if account and seen.status == "skipped" else seen
            if rendezvous:  # not in a thread: its pods are deleted when this process is stopped
                yield row("rendezvous", functools.partial(meet, api, job, service_account))
        yield row_within(SECONDS, "storage", lambda: services.stores(uri))
        yield row_within(SECONDS, "MLflow", lambda: services.tracks(tracking_uri))

    found = []
    for each in rows():
        found.append(each)
        if not json:
            print(each, flush=True)
    if json:
        print(as_json(found), flush=True)
    return found


def looks(api: Api, kind: JobKind, job: Job, service_account: str, by_token: bool = False) -> dict[str, Callable[[], Finding]]:
    """The lines about the cluster. by_token: whether it is the service account itself that asks."""
    return {
        "job kind": lambda: checks.serves(api, kind),
        "operator": lambda: checks.operates(api, kind, job),
        "rights": lambda: checks.permits(api, kind, service_account, by_token),
        "Pod Security": lambda: checks.admits(api, job.image, service_account),
        "service account": lambda: checks.has_account(api, service_account),
        "settings": lambda: checks.has_settings(api),
        "secrets": lambda: checks.has_secrets(api),
        "GPUs": lambda: room.has_gpus(api, job.num_workers, job.num_gpus),
        "quota": lambda: room.has_room(api, job),
        "limits": lambda: room.fits(api, job),
        "retries": lambda: controller.retries(api),
    }


def check_rows(rows: Sequence[Row]) -> None:
    """UserError that names the checks that failed, if any did."""
    if failed := [each.check for each in rows if each.status == "failed"]:
        raise UserError(f"{len(failed)} of {len(rows)} checks failed: {', '.join(failed)}")
