"""What a compiled pipeline has on a cluster, and the local runner does without: images by digest, settings and keys from the
namespace, pods that Pod Security `restricted` lets in, another try for training, and an end that leaves nothing behind.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.graph_component import GraphComponent
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

from components.clean_up.component import clean_up
from components.image import TRAIN_IMAGE
from components.launch.namespace import CERTIFICATES, CERTIFICATES_DIR, CONFIG, SECRETS, SETTINGS

NO_SIDECAR = ("sidecar.istio.io/inject", "false")
RETRIES, RETRY_SECONDS = 2, 60


def with_clean_up(pipeline: GraphComponent) -> GraphComponent:
    """The same pipeline with clean_up after it, however it ends. It has no outputs: KFP lets none out of an exit handler."""
    function = pipeline.pipeline_func
    signature = inspect.signature(function)

    @functools.wraps(function)
    def handled(*values: Any) -> None:
        given = dict(zip(signature.parameters, values, strict=True))
        last = clean_up(
            experiment=given["experiment"],
            tracking_uri=given["tracking_uri"],
            pipeline_run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        ).set_caching_options(enable_caching=False)
        with dsl.ExitHandler(last, name=pipeline.name):
            function(*values)

    handled.__signature__ = signature.replace(return_annotation=None)  # type: ignore[attr-defined]
    handled.__annotations__ = {**function.__annotations__, "return": None}
    made: GraphComponent = dsl.pipeline(name=pipeline.name)(handled)
    return made


def set_images(spec: PipelineSpec, images: Mapping[str, str]) -> None:
    """Put `images` in the place of those that the components were written with, and let every step know its own."""
    for executor in spec.deployment_spec["executors"].values():
        container = executor["container"]
        container["image"] = images[container["image"]]
        container.get_or_create_list("env").append({"name": "IMAGE", "value": container["image"]})
    set_default(spec, "train_image", images[TRAIN_IMAGE])


def set_default(spec: PipelineSpec, name: str, value: str | list[str]) -> None:
    """Of a parameter of the pipeline, if it has it: what its training jobs share with its steps."""
    if name in spec.root.input_definitions.parameters:
        default = spec.root.input_definitions.parameters[name].default_value
        if isinstance(value, str):
            default.string_value = value
        else:
            default.list_value.Clear()
            default.list_value.extend(value)


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
    kubernetes.use_config_map_as_env(task, CONFIG, {name: name for name in SETTINGS}, optional=True)
    for secret, names in SECRETS.items():
        kubernetes.use_secret_as_env(task, secret, {name: name for name in names}, optional=True)
    kubernetes.use_config_map_as_volume(task, CERTIFICATES, CERTIFICATES_DIR, optional=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp")  # the root file system may be read-only
    kubernetes.set_security_context(task, run_as_non_root=True)  # KFP adds what else `restricted` asks for
    kubernetes.add_pod_label(task, *NO_SIDECAR)  # newer Istio reads the label, older the annotation
    kubernetes.add_pod_annotation(task, *NO_SIDECAR)
    if image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(image_pull_secrets))
    return task.platform_config["kubernetes"]
