"""How large is the Workflow object of a finished run?

    python benchmarks/workflow_size.py [--build-dir build]

Above 1 MiB Kubeflow stops telling how a run stands. Seen on a real Kubeflow 2.17: a step's component (its inputs, with their
descriptions), its task, its container (the source of a lightweight component), its Kubernetes settings and the patch of its pod
are kept in two driver nodes each, and the patch in four more. The patch has the launcher's command line: component and executor
input, escaped, and the container's command. Pipelines, loops and conditions within the pipeline are no steps: they have
component and task in two nodes, and are shown apart.

Prints the weight of each step from the compiled YAML and example settings, and the ratio to the pipeline before its parameters
travelled once, of which a run was measured (942 KB, November 2026); writes workflow_size.json.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from measure import save

from components import cli
from components.errors import UserError
from components.resolve.stage import check, texts_of

LIMIT = 2**20
BEFORE = 942_000
"""Bytes of one finished run of adapt, measured on a real Kubeflow before there was components.resolve (commit b7acd9a)."""
BEFORE_COUNTED = 630_700
"""The same run as this benchmark counts it. The rest is Argo's own, of each node: it shrinks with the number of nodes alone."""
EXAMPLE = {
    "task": "mnli",
    "model": f"google-bert/bert-base-uncased@{'0' * 40}",
    "source": f"hub:nyu-mll/glue@{'0' * 40}",
    "recipe": "scala",
    "num_workers": 4,
    "num_gpus_per_worker": 8,
    "cpu_per_worker": "32",
    "memory_per_worker": "256Gi",
    "tracking_uri": "http://mlflow.kubeflow.svc.cluster.local:5000",
}
DIGESTS = {"digest": "0" * 64, "code": "0" * 64, "input_data": "0" * 64, "mlflow_run_id": "0" * 32}
ITERATION = {"trained": {"iteration": "task=mnli, seed=0"}, "evaluation": {"iteration": "task=mnli, seed=0"}}
"""Artifact -> what it says besides, in a suite."""
LAUNCHER = (
    "--pipeline_name adapt --run_id 00000000-0000-0000-0000-000000000000 --execution_id 1234 --pod_name $(KFP_POD_NAME) "
    "--pod_uid $(KFP_POD_UID) --mlmd_server_address metadata-grpc-service.kubeflow.svc.cluster.local --mlmd_server_port 8080 "
    "--publish_logs true"
).split()
URI = (
    "s3://mlpipeline/v2/artifacts/adapt/00000000-0000-0000-0000-000000000000/train/00000000-0000-0000-0000-000000000000/trained"
)


def workflow_size(*, build_dir: Path | None = None, output_dir: Path = Path("build/workflow_size")) -> None:
    """Weigh what a finished run of each compiled pipeline leaves in Kubeflow's Workflow object.

    Args:
        build_dir: Folder with PIPELINE.yaml, as `make compile` writes it. Default: compiled now.
        output_dir: Folder for the results.
    """
    with tempfile.TemporaryDirectory() as folder:
        if build_dir is None:
            build_dir = Path(folder)
            _compile(build_dir)
        try:
            sizes = {name: weigh(build_dir / f"{name}.yaml") for name in ("adapt", "adapt-in-parts", "suite")}
        except OSError as error:
            raise UserError(f"{build_dir} has no compiled pipelines: {error}") from None
    for name, weights in sizes.items():
        print(name)
        for step, size in weights.items():
            print(f"  {step:55} {size / 1000:7.1f} KB")
        print(f"  {'steps':55} {of_steps(weights) / 1000:7.1f} KB\n  {'all':55} {sum(weights.values()) / 1000:7.1f} KB")
    adapt, iteration = sum(sizes["adapt"].values()), iteration_of(sizes["suite"])
    share = BEFORE / BEFORE_COUNTED
    runs = runs_below_limit(sizes["suite"])
    print(f"adapt: {adapt / 1000:.0f} KB, {adapt / BEFORE_COUNTED:.2f} of what it was, {adapt * share / 1000:.0f} KB to expect")
    print(f"suite: {of_steps(iteration) / 1000:.0f} KB of steps a run; {runs} runs to expect below 1 MiB")
    save(
        output_dir,
        "workflow_size",
        {
            "before": {"measured": BEFORE, "counted": BEFORE_COUNTED},
            "bytes": sizes,
            "adapt": adapt,
            "iteration": of_steps(iteration),
        },
    )


def _compile(folder: Path) -> None:
    import contextlib
    import io

    from pipelines.compile import compile_all

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        compile_all(output_dir=folder)


def weigh(path: Path) -> dict[str, int]:
    """Bytes of each step, and of each pipeline or loop, of a compiled pipeline in which all steps ran, each loop once."""
    spec, *others = yaml.safe_load_all(path.read_text())
    settings = others[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if others else {}
    examples = texts_of(check(EXAMPLE))
    sizes: dict[str, int] = {}
    for name, task, component in _tasks(spec, spec["root"], ""):
        kept = [component, task]
        if "executorLabel" in component:
            label = component["executorLabel"]
            container, kubernetes = spec["deploymentSpec"]["executors"][label]["container"], settings.get(label, {})
            patch = _patch(task, component, container, kubernetes, examples)
            sizes[name] = 2 * _bytes(*kept, container, kubernetes, patch) + 4 * _bytes(patch)
        else:
            sizes[name] = 2 * _bytes(*kept)
    return sizes


def of_steps(sizes: Mapping[str, int]) -> int:
    return sum(size for name, size in sizes.items() if not name.endswith("/"))


def iteration_of(sizes: Mapping[str, int]) -> dict[str, int]:
    """What is in the loop."""
    return {name: size for name, size in sizes.items() if "for-loop" in name}


def _tasks(spec: Mapping[str, Any], part: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any, Any]]:
    for name, task in part.get("dag", {}).get("tasks", {}).items():
        component = spec["components"][task["componentRef"]["name"]]
        place = f"{where}{name}" if "executorLabel" in component else f"{where}{name}/"
        yield place, task, component
        yield from _tasks(spec, component, place)


def runs_below_limit(sizes: Mapping[str, int]) -> int:
    """How many iterations of a suite to expect in a Workflow that Kubeflow can still tell of."""
    each = sum(iteration_of(sizes).values())
    return int((LIMIT * BEFORE_COUNTED / BEFORE - (sum(sizes.values()) - each)) / each)


def _patch(task: Any, component: Any, container: Any, kubernetes: Any, examples: Mapping[str, str]) -> dict[str, Any]:
    """What KFP's driver makes of a step, for Argo to put over the pod."""
    inputs, outputs = component.get("inputDefinitions", {}), component.get("outputDefinitions", {})
    values = {name: EXAMPLE.get(name, "") for name in inputs.get("parameters", {})}
    values |= {"settings": examples.get(task["taskInfo"]["name"], "")} if "settings" in values else {}
    artifacts = {
        name: {"artifacts": [{"uri": URI, "metadata": DIGESTS | ITERATION.get(name, {})}]}
        for name in inputs.get("artifacts", {})
    }
    made = {name: {"artifacts": [{"name": name, "uri": URI, "metadata": {}}]} for name in outputs.get("artifacts", {})}
    files = {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in outputs.get("parameters", {})}
    executor_input = {
        "inputs": {"parameterValues": values, "artifacts": artifacts},
        "outputs": {"artifacts": made, "parameters": files, "outputFile": "/tmp/kfp_outputs/output_metadata.json"},
    }
    launcher = [*LAUNCHER, "--executor_input", json.dumps(executor_input), "--component_spec", json.dumps(component)]
    command = [*container.get("command", []), *container.get("args", [])]
    mounted = [("configMap", it["configMapName"], it["mountPath"]) for it in kubernetes.get("configMapAsVolume", [])]
    mounted += [("secret", it["secretName"], it["mountPath"]) for it in kubernetes.get("secretAsVolume", [])]
    by_path = [
        {"name": it["name"], "valueFrom": {"fieldRef": {"fieldPath": it["fieldPath"]}}}
        for it in kubernetes.get("fieldPathAsEnv", [])
    ]
    by_key = [
        {
            "name": key["envVar"],
            "valueFrom": {
                "secretKeyRef": {
                    "name": source.get("configMapName") or source["secretName"],
                    "key": key["envVar"],
                    "optional": True,
                }
            },
        }
        for source in (*kubernetes.get("configMapAsEnv", []), *kubernetes.get("secretAsEnv", []))
        for key in source["keyToEnv"]
    ]
    main = {
        "name": "main",
        "image": container["image"],
        "command": ["launcher-v2"],
        "args": [*launcher, "--", *command],
        "env": [*container.get("env", []), *by_path, *by_key],
        "volumeMounts": [{"name": name, "mountPath": path} for _, name, path in mounted],
        "resources": _resources(container.get("resources", {})),
    }
    return {
        "containers": [main],
        "volumes": [{"name": name, kind: {"name": name, "optional": True}} for kind, name, _ in mounted],
    }


def _resources(asked: Any) -> dict[str, dict[str, str]]:
    sides = {
        side.lower() + "s": {kind.lower(): asked[f"resource{kind}{side}"] for kind in ("Cpu", "Memory")}
        for side in ("Limit", "Request")
        if asked
    }
    if accelerator := asked.get("accelerator"):
        sides["limits"][accelerator["resourceType"]] = accelerator["resourceCount"]
    return sides


def _bytes(*parts: Any) -> int:
    """As text within JSON, as Argo keeps the parameters of its nodes."""
    return sum(len(json.dumps(json.dumps(part))) for part in parts)


if __name__ == "__main__":
    cli.run(workflow_size, "python benchmarks/workflow_size.py")
