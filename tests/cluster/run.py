"""Try the whole product on a real cluster: make test-cluster

It takes the cluster of the kubeconfig, and the Kubeflow Pipelines in it. Where the namespace has none of our settings yet, the
documented installation is made, with a store and MLflow in a namespace of their own, and removed at the end. Where there is no
cluster, nothing is tried.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from place import WORK, NotHere, Place, prepared
from scenes import SCENES

from components import cli
from components.errors import FailedError, UserError
from components.image import IMAGE, TRAIN_IMAGE


def try_cluster(
    *,
    namespace: str = "kubeflow",
    endpoint: str = "",
    image: str = IMAGE,
    train_image: str = TRAIN_IMAGE,
    mlflow_image: str = "localhost:5000/adapt-python-mlflow:0.1.0",
    only: Sequence[str] = (),
    minutes: float = 60.0,
) -> None:
    """Try every scene, and write a table of what was seen to build/test-cluster.

    Args:
        namespace: Where runs have their pods: kubeflow, or a profile's.
        endpoint: Kubeflow Pipelines' API. Default: KF_PIPELINES_ENDPOINT, else by a port of the cluster's own.
        image: Of the stages without torch, as `make push` prints it.
        train_image: Of the others and of the training jobs' pods, likewise.
        mlflow_image: Of the server, where there is none yet.
        only: Names of scenes, or their beginnings. Default: all.
        minutes: For all of it; what has not begun by then is not run.
    """
    if unknown := [name for name in only if not chosen(name)]:
        raise UserError(f"--only {unknown[0]}: there is {', '.join(SCENES)}")
    until = time.monotonic() + 60 * minutes
    names = [name for name in SCENES if not only or any(name in chosen(each) for each in only)]
    try:
        with prepared(namespace, endpoint, image, train_image, mlflow_image, until) as place:
            rows = tried(place, names)
    except NotHere as reason:
        print(f"skipped: {reason}")
        return
    write(rows)
    if failed := [name for name, status, *_ in rows if status == "failed"]:
        raise FailedError(f"{len(failed)} of {len(rows)} failed: {', '.join(failed)}")


Row = tuple[str, str, float, str]
"""Name, status (ok, failed, skipped, not run), seconds, what was seen."""


def chosen(name: str) -> list[str]:
    return [scene for scene in SCENES if scene.startswith(name)]


def tried(place: Place, names: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        began = time.monotonic()
        if began > place.until:
            status, seen = "not run", "the time is up"
        else:
            try:
                status, seen = "ok", SCENES[name](place)
            except NotHere as reason:
                status, seen = "skipped", str(reason)
            except Exception as error:  # one scene's fault is not the others'
                status, seen = "failed", f"{type(error).__name__}: {error}"
        seen = " ".join(seen.split())
        rows.append((name, status, time.monotonic() - began, seen))
        print(f"{status:8} {name:24} {rows[-1][2]:5.0f} s  {seen}", flush=True)
    return rows


def write(rows: Sequence[Row], folder: Path = WORK) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.json").write_text(json.dumps(rows, indent=1) + "\n")
    lines = ["| scene | | seconds | what was seen |", "| --- | --- | ---: | --- |"]
    lines += [f"| {name} | {status} | {seconds:.0f} | {seen.replace('|', '/')} |" for name, status, seconds, seen in rows]
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    print(f"\n{folder / 'table.md'}: {sum(seconds for *_, seconds, _ in rows) / 60:.0f} minutes")


if __name__ == "__main__":
    cli.run(try_cluster, "make test-cluster")
