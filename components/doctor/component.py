"""components.doctor as KFP components: one that looks and always tells, and one that fails if there was something to tell.

They are two since Kubeflow keeps no artifact of a step that failed.
"""

from kfp import dsl
from kfp.dsl import Markdown, Output

from components.image import IMAGE
from components.parameters import documented


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def doctor(
    findings: Output[Markdown],
    kind: str,
    train_image: str,
    training_runtime: str,
    uri: str,
    tracking_uri: str,
    num_workers: int,
    num_gpus_per_worker: int,
    cpu_per_worker: str,
    memory_per_worker: str,
    rendezvous: bool,
) -> str:
    """Check what a pipeline run needs. The output names the checks that failed."""
    from pathlib import Path

    from components.doctor.finding import markdown
    from components.doctor.stage import doctor
    from components.errors import exit_codes

    with exit_codes(beside=findings.path):
        rows = doctor(
            kind=kind,  # type: ignore[arg-type]  # which it checks itself
            train_image=train_image,
            training_runtime=training_runtime,
            uri=uri,
            tracking_uri=tracking_uri,
            num_workers=num_workers,
            num_gpus_per_worker=num_gpus_per_worker,
            cpu_per_worker=cpu_per_worker,
            memory_per_worker=memory_per_worker,
            rendezvous=rendezvous,
        )
        Path(findings.path).write_text(markdown(rows))
        return ", ".join(each.check for each in rows if each.status == "failed")


@dsl.component(base_image=IMAGE, install_kfp_package=False)
@documented
def verdict(failed: str):
    """Fail where a check did."""
    from components.errors import UserError, exit_codes

    with exit_codes():
        if failed:
            raise UserError(f"checks failed: {failed}; the doctor step's findings say what to do")
