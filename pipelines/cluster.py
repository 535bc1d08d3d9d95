"""What a compiled pipeline has on a cluster, and the local runner does without: images by digest, settings and keys from the
namespace, pods that Pod Security `restricted` lets in, another try for training, and an end that leaves nothing behind.
"""

import ast
import functools
import inspect
import typing
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.graph_component import GraphComponent
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

from components.launch.namespace import CERTIFICATES, CERTIFICATES_DIR, MOUNTS
from pipelines.ending import on_cluster

NO_SIDECAR = ("sidecar.istio.io/inject", "false")
RUN_ID = "metadata.labels['pipeline/runid']"
"""Of the pod: Kubeflow's own label. An input would be another in each run, so that Kubeflow's cache knew no step."""
RETRIES, RETRY_SECONDS = 2, 60


def for_cluster(pipeline: GraphComponent) -> GraphComponent:
    """The same pipeline with clean_up after it, however it ends. It has no outputs: KFP lets none out of an exit handler."""
    function = pipeline.pipeline_func

    @functools.wraps(function)
    def without_outputs(*values: Any) -> None:
        function(*values)

    without_outputs.__signature__ = inspect.signature(function).replace(return_annotation=None)  # type: ignore[attr-defined]
    without_outputs.__annotations__ = {**function.__annotations__, "return": None}
    with on_cluster():
        made: GraphComponent = dsl.pipeline(name=pipeline.name)(without_outputs)
    return made


def set_images(spec: PipelineSpec, images: Mapping[str, str]) -> None:
    """Put `images` in the place of those that the components were written with, and let every step know its own: a training
    job has that of its step.
    """
    for executor in spec.deployment_spec["executors"].values():
        container = executor["container"]
        container["image"] = images[container["image"]]
        container.get_or_create_list("env").append({"name": "IMAGE", "value": container["image"]})


def set_default(spec: PipelineSpec, name: str, value: str) -> None:
    """Of a parameter of the pipeline, if it has it."""
    if name in spec.root.input_definitions.parameters:
        spec.root.input_definitions.parameters[name].default_value.string_value = value


def set_pull_secrets(spec: PipelineSpec, names: Sequence[str]) -> None:
    """Tell the first step, which tells the training job, whose pods share the images of the steps."""
    for component in spec.components.values():  # a suite has two of them
        if "image_pull_secrets" in component.input_definitions.parameters:
            default = component.input_definitions.parameters["image_pull_secrets"].default_value
            default.list_value.Clear()
            default.list_value.extend(list(names))


def cache_digests_alone(spec: PipelineSpec) -> None:
    """No step whose image is not named by its digest may be cached: Kubeflow's key has the name, and not what it means."""
    executors = spec.deployment_spec["executors"]
    for part in (spec.root, *spec.components.values()):
        for task in part.dag.tasks.values():
            label = spec.components[task.component_ref.name].executor_label
            if label and "@sha256:" not in executors[label]["container"]["image"]:
                task.ClearField("caching_options")
                task.caching_options.SetInParent()


START = (
    'p=$(mktemp -d)/step.py; printf %s "$0" >$p; _KFP_RUNTIME=true exec python3 -m kfp.dsl.executor_main '
    '--component_module_path $p "$@"'
)
"""kfp's own script in fewer words; and its shell gives way to Python, which so gets the signal when the step is stopped."""


def slim(spec: PipelineSpec) -> None:
    """Leave out what Kubeflow keeps a dozen times over and nobody sees: descriptions of the steps and their inputs.

    Above 1 MiB a run's Workflow object ends what Kubeflow can tell of the run (benchmarks/workflow_size.py).
    """
    for component in spec.components.values():
        for inputs in (component.input_definitions.parameters, component.input_definitions.artifacts):
            for given in inputs.values():
                given.ClearField("description")
    for executor in spec.deployment_spec["executors"].values():
        *_, source = command = executor["container"]["command"]
        command[2] = START
        command[3] = _shortened(source)


def _shortened(source: str) -> str:
    """A component's function as KFP hands it to its pod, without its docstring and the imports that it makes no use of."""
    module = ast.parse(source)
    (function,) = (node for node in module.body if isinstance(node, ast.FunctionDef))
    if ast.get_docstring(function):
        del function.body[0]
    used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    offered = {"kfp": {"dsl"}, "kfp.dsl": set(dir(dsl)), "typing": set(typing.__all__)}
    module.body = [node for node in module.body if not isinstance(node, ast.Import) or used & {it.name for it in node.names}]
    module.body = [
        node for node in module.body if not isinstance(node, ast.ImportFrom) or used & offered.get(node.module or "", used)
    ]
    return ast.unparse(module)


def set_retries(spec: PipelineSpec, component: str) -> None:
    """Try the steps of that component again. KFP cannot tell a typo from a lost node: it tries again after either."""
    for part in (spec.root, *spec.components.values()):
        for task in part.dag.tasks.values():
            if task.component_ref.name == f"comp-{component}":
                task.retry_policy.max_retry_count = RETRIES
                task.retry_policy.backoff_duration.seconds = RETRY_SECONDS
                task.retry_policy.backoff_factor = 2
                task.retry_policy.backoff_max_duration.seconds = 10 * RETRY_SECONDS


def platform_of(spec: PipelineSpec, image_pull_secrets: Sequence[str]) -> PlatformSpec:
    """The same settings for every step, those of nested pipelines included."""
    platform = PlatformSpec()
    executors, settings = platform.platforms["kubernetes"].deployment_spec.executors, _settings(image_pull_secrets)
    for name in spec.deployment_spec["executors"]:
        executors[name].update(settings)
    return platform


def _settings(image_pull_secrets: Sequence[str]) -> dict[str, Any]:
    """What kfp-kubernetes makes of a task, which it asks for no more than the place to write to."""
    task = SimpleNamespace(platform_config={})
    mount = {"configMap": kubernetes.use_config_map_as_volume, "secret": kubernetes.use_secret_as_volume}
    for name, (kind, path) in MOUNTS.items():
        mount[kind](task, name, path, optional=True)
    kubernetes.use_config_map_as_volume(task, CERTIFICATES, CERTIFICATES_DIR, optional=True)
    kubernetes.use_field_path_as_env(task, "PIPELINE_RUN_ID", RUN_ID)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp")  # the root file system may be read-only
    kubernetes.set_security_context(task, run_as_non_root=True)  # KFP adds what else `restricted` asks for
    kubernetes.add_pod_label(task, *NO_SIDECAR)  # newer Istio reads the label, older the annotation
    kubernetes.add_pod_annotation(task, *NO_SIDECAR)
    if image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(image_pull_secrets))
    settings: dict[str, Any] = task.platform_config["kubernetes"]
    for mounted in (*settings["configMapAsVolume"], *settings["secretAsVolume"]):
        for name in [name for name in mounted if name.endswith("NameParameter")]:
            del mounted[name]  # the name once more, as a parameter could give it: Kubeflow would keep both of each step, twice
    return settings
