"""What the product has to do on a real cluster, in the order in which it is tried. A scene returns what was seen, in a line."""

import re
import subprocess
import sys
from collections.abc import Callable

from place import ROOT, Ended, NotHere, Place, apply, kubectl

from components.launch.api import PODS

SMALL: dict[str, object] = {
    "task": "sst2",
    "source": "sample",
    "num_sample_rows": 200,
    "model": "tiny",
    "num_epochs": 2,
    "global_batch_size": 16,
    "robustness_rows": 0,
    "launcher": "pytorchjob",
    "num_workers": 2,
    "cpu_per_worker": "500m",
    "memory_per_worker": "1Gi",
    "shared_memory": "64Mi",
    "attempt_pause_seconds": 5,
}
LONG: dict[str, object] = {"num_epochs": 0, "num_updates": 3000, "checkpoint_minutes": 0.1}
"""A minute of training, that something may happen in it."""
SUITE = (
    "suite --source sample --num-sample-rows 80 --model tiny --num-epochs 1 --robustness-rows 0 --launcher torchrun "
    "--tasks rte,cola,wnli"
).split()
FIRST_PAUSE = re.compile(r"; attempt 2 of \d+ in ")
Scene = Callable[[Place], str]


def of(place: Place, **options: object) -> list[str]:
    """A small run, under this test's own names."""
    given = {**SMALL, "experiment": place.name, "name": place.name, **options}
    return ["adapt", *(word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value)))]


def succeeded(ended: Ended) -> Ended:
    assert ended.code == 0, ended.said.strip().splitlines()[-3:]
    return ended


def overlay(place: Place) -> str:
    """The namespace has what docs/cluster.md says."""
    wanted = ("configmap/adapt-config", "secret/adapt-s3", "role/adapt", "rolebinding/adapt", "networkpolicy/adapt-train")
    return ", ".join(kubectl("-n", place.api.namespace, "get", *wanted, "-o", "name").split())


def doctor(place: Place) -> str:
    """From here, and from a pod with the steps' service account."""
    command = [sys.executable, "-m", "components.doctor", "--namespace", place.api.namespace]
    command += ["--train-image", place.train_image, "--service-account", place.account, "--rendezvous"]
    here = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert here.returncode == 0, [line for line in here.stdout.splitlines() if line.startswith("failed")]
    succeeded(place.submit("doctor"))
    return "nothing red, from here and from a pod"


def pytorchjob(place: Place) -> str:
    """A whole adapt; its first model is champion."""
    ended = succeeded(place.submit(*of(place)))
    assert not place.jobs(ended.run_id), "its training job is still there"
    size = place.workflow_bytes(ended.run_id)
    assert size < 2**20, f"its Workflow has {size} bytes"
    if place.mlflow:
        assert str(place.mlflow.get_model_version_by_alias(place.name, "champion").version) == "1"
        assert {run.info.status for run in place.stages(ended.run_id)} == {"FINISHED"}
    return f"{place.name} version 1 is champion; its Workflow has {size / 1000:.0f} KB"


def cached(place: Place) -> str:
    """The same again: nothing is tokenized, trained or evaluated."""
    if "@sha256:" not in place.train_image:
        raise NotHere("the images are named by tags: nothing is cached")
    ended = succeeded(place.submit(*of(place)))
    made = {run.info.run_name for run in place.stages(ended.run_id)} & {"tokenize", "train", "evaluate"}
    assert not made, f"made anew: {', '.join(sorted(made))}"
    return f"tokenize, train and evaluate taken from the cache, {ended.seconds:.0f} s"


def second_seed(place: Place) -> str:
    """Another seed meets the champion."""
    succeeded(place.submit(*of(place, seed=1)))
    if place.mlflow is None:
        return "ran"
    version = place.mlflow.get_model_version(place.name, "2")
    assert version.tags["gate.champion"] == "1", version.tags
    return f"version 2: gate {version.tags['gate']}"


def trainjob(place: Place) -> str:
    """The same by Kubeflow Trainer."""
    if not place.has("trainjob"):
        raise NotHere("there are no TrainJobs")
    ended = succeeded(place.submit(*of(place, seed=2, launcher="trainjob")))
    assert not place.jobs(ended.run_id), "its training job is still there"
    return "two nodes"


def user_error(place: Place) -> str:
    """What the user can mend is said, with exit code 2."""
    ended = place.submit(*of(place, source="/nowhere"))
    assert ended.code == 2, ended.said
    assert "/nowhere" in ended.said, ended.said
    return ended.said.strip().splitlines()[-1]


def out_of_memory(place: Place) -> str:
    """A rank that needs more than its limit is the user's to mend, and is not tried again."""
    ended = place.submit(*of(place, memory_per_worker="128Mi", seed=3))
    assert ended.code == 2, ended.said
    assert "out of memory" in ended.said, ended.said
    return ended.said.strip().splitlines()[-1]


def deleted_pod(place: Place) -> str:
    """A pod that somebody deletes: the step itself tries again, from the checkpoint."""
    run_id = place.start(*of(place, **LONG, seed=4))
    place.delete_pod(place.training(run_id, more_seconds=15)[-1])
    trained(place, run_id)
    log = log_of_step(place, run_id)
    assert FIRST_PAUSE.search(log), log[-300:]
    place.terminate(run_id)
    went_on = re.search(r"goes on at update \d+ of \d+", log)
    return f"a second attempt, which {went_on[0] if went_on else 'began anew'}"


def killed_launcher(place: Place) -> str:
    """The train step's pod is killed: its next life takes the running job over."""
    run_id = place.start(*of(place, **LONG, seed=5))
    place.training(run_id)
    (job,) = place.jobs(run_id)
    place.delete_pod(step_of(place, run_id))
    trained(place, run_id)
    after = {it["metadata"]["uid"] for it in place.jobs(run_id)} - {job["metadata"]["uid"]}
    assert not after, "a second job"
    place.terminate(run_id)
    return "the same job was followed to its end"


def terminated(place: Place) -> str:
    """A terminated run leaves no job, and MLflow does not say that it goes on."""
    run_id = place.start(*of(place, **LONG, seed=6))
    place.training(run_id)
    place.terminate(run_id)
    place.wait_for("end of the job", lambda: not place.jobs(run_id), 240)
    place.wait_for("end in MLflow", lambda: "RUNNING" not in {run.info.status for run in place.stages(run_id)}, 120)
    return f"MLflow: {', '.join(sorted({run.info.status for run in place.stages(run_id)}))}"


def elastic(place: Place, worker: int) -> str:
    """A worker of an elastic job is lost, and replaced; the training goes on."""
    run_id = place.start(*of(place, **LONG, min_workers=1, seed=7 + worker))
    ranks = place.training(run_id, more_seconds=15)
    place.delete_pod(next(pod for pod in ranks if pod["metadata"]["name"].endswith(f"worker-{worker}")))
    trained(place, run_id)
    place.terminate(run_id)
    return f"went on without worker-{worker}"


def quota(place: Place) -> str:
    """A job that a quota refuses. Only for pods of a priority class of our own: nobody else is touched."""
    name = "adapt-test"
    apply({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 0})
    only = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": [name]}]}
    metadata = {"name": name, "namespace": place.api.namespace}
    spec = {"hard": {"pods": "1"}, "scopeSelector": only}
    apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": spec})
    try:
        ended = place.submit(*of(place, seed=9, priority_class=name, start_timeout_minutes=1))
    finally:
        kubectl("-n", place.api.namespace, "delete", "resourcequota", name, "--ignore-not-found")
        kubectl("delete", "priorityclass", name, "--ignore-not-found")
    assert ended.code == 2, ended.said
    assert "exceeded quota" in ended.said, ended.said
    return ended.said.strip().splitlines()[-1]


def queue(place: Place) -> str:
    """Kueue lets a job in that fits, and one that never will is the user's to mend."""
    if not place.serves("/apis/kueue.x-k8s.io/v1beta1", "localqueues"):
        raise NotHere("there is no Kueue")
    name, version = "adapt-test", "kueue.x-k8s.io/v1beta1"
    resources = [{"name": "cpu", "nominalQuota": "1500m"}, {"name": "memory", "nominalQuota": "4Gi"}]
    group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": name, "resources": resources}]}
    of_cluster = {"namespaceSelector": {}, "resourceGroups": [group]}
    apply({"apiVersion": version, "kind": "ResourceFlavor", "metadata": {"name": name}})
    apply({"apiVersion": version, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": of_cluster})
    metadata = {"name": name, "namespace": place.api.namespace}
    apply({"apiVersion": version, "kind": "LocalQueue", "metadata": metadata, "spec": {"clusterQueue": name}})
    try:
        run_id = place.start(*of(place, seed=10, queue=name))
        trained(place, run_id)
        place.terminate(run_id)
        too_large = place.submit(*of(place, seed=11, queue=name, cpu_per_worker=2), seconds=300)
    finally:
        kubectl("-n", place.api.namespace, "delete", "localqueue", name, "--ignore-not-found")
        kubectl("delete", "clusterqueue,resourceflavor", name, "--ignore-not-found", "--wait=false")
    assert too_large.code == 2, too_large.said
    return too_large.said.strip().splitlines()[-1]


def suite_of_3(place: Place) -> str:
    """More than one run of Kubeflow holds: three of their own, and their table."""
    ended = succeeded(place.submit(*suite(place, "0"), seconds=1500))
    assert ended.said.count(" succeeded ") >= 3, ended.said
    return f"three runs and their table, {ended.seconds:.0f} s"


def suite_of_12(place: Place) -> str:
    """With more seeds: those that are there are left out."""
    ended = succeeded(place.submit(*suite(place, "0,1,2,3"), seconds=2400))
    assert ended.said.count("already there") == 3, ended.said
    return f"nine more runs and their table, {ended.seconds:.0f} s"


def left(place: Place) -> str:
    """No job, no rank and no open run in MLflow is left of all this."""
    jobs = [job["metadata"]["name"] for job in place.jobs()]
    assert not jobs, f"jobs: {', '.join(jobs)}"
    pods = place.api.request("GET", PODS, query={"labelSelector": "app.kubernetes.io/name=adapt"})["items"]
    going = [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") in ("Pending", "Running")]
    assert not going, f"pods: {', '.join(going)}"
    if place.mlflow and (experiment := place.mlflow.get_experiment_by_name(place.name)):
        open_runs = place.mlflow.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
        assert not open_runs, f"open in MLflow: {', '.join(run.info.run_name for run in open_runs)}"
    return "nothing"


# --- what several of them do ---


def suite(place: Place, seeds: str) -> list[str]:
    return [*SUITE, "--seeds", seeds, "--experiment", place.name]


def trained(place: Place, run_id: str) -> None:
    """Until the train step has ended well. What comes after it is in other scenes."""

    place.wait_for("end of training", lambda: place.has_ended(run_id, "train"), 600)


def step_of(place: Place, run_id: str) -> dict:  # type: ignore[type-arg]
    """The running pod of the train step: it is the one that no other step runs beside."""
    query = {"labelSelector": f"pipeline/runid={run_id}", "fieldSelector": "status.phase=Running"}
    pods = [pod for pod in place.api.request("GET", PODS, query=query)["items"] if "driver" not in pod["metadata"]["name"]]
    assert len(pods) == 1, [pod["metadata"]["name"] for pod in pods]
    return dict(pods[0])


def log_of_step(place: Place, run_id: str) -> str:
    """Of all pods of the run's steps, the train step's among them."""
    pods = place.api.request("GET", PODS, query={"labelSelector": f"pipeline/runid={run_id}"})["items"]
    logs: list[bytes] = []
    for pod in pods:
        try:
            logs += place.api.lines(f"{PODS}/{pod['metadata']['name']}/log", {"container": "main", "tailLines": 400})
        except Exception:  # it has none yet
            continue
    return b"\n".join(logs).decode(errors="replace")


SCENES: dict[str, Scene] = {
    "overlay": overlay,
    "doctor": doctor,
    "adapt, PyTorchJob of 2": pytorchjob,
    "cached rerun": cached,
    "second seed": second_seed,
    "TrainJob of 2": trainjob,
    "user error": user_error,
    "out of memory": out_of_memory,
    "deleted pod": deleted_pod,
    "killed launcher": killed_launcher,
    "terminated": terminated,
    "elastic, worker-0 lost": lambda place: elastic(place, 0),
    "elastic, worker-1 lost": lambda place: elastic(place, 1),
    "quota": quota,
    "queue": queue,
    "suite of 3": suite_of_3,
    "suite of 12": suite_of_12,
    "left behind": left,
}
