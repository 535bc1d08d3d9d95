"""The Role lets the launcher do exactly what it does."""

from pathlib import Path

import pytest
from launcher import SPEED, absent, api_of, job, limits_of, stopped_after, stored
from manifests import granted
from replay import replay
from scenarios import SCENARIOS

from components.launch import jobs
from components.launch.access import NEEDED, OF_CLEANING, OF_QUEUES, OF_THE_DOCTOR
from components.launch.job import manifest
from components.launch.lifecycle import run_once, run_to_end


def test_the_role_grants_what_is_used_and_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[tuple[str, str, str]] = set()
    with replay("01", speed=SPEED) as cluster:
        api = api_of(cluster)
        jobs.create(api, "pytorchjob", manifest(job(3), "pytorchjob"))
        run_to_end(api, job(3), "pytorchjob", limits_of(SCENARIOS[0]), tmp_path, stored)  # takes it over
        jobs.owner(api, "step")
        monkeypatch.setattr(jobs, "connect", lambda namespace: api)
        jobs.delete_run("run-1")
        with pytest.raises(SystemExit), stopped_after(0.3):
            run_once(api, job(3), "pytorchjob", limits_of(SCENARIOS[0]), tmp_path / "stopped", absent)
        used |= {(asked.group, asked.within(), asked.verb) for asked in cluster.requests}
    used = {right for right in used if right[1] != "selfsubjectaccessreviews"}  # which everybody may ask for
    of_others = OF_THE_DOCTOR + OF_QUEUES + OF_CLEANING
    of_launcher = granted() - {(group, resource, verb) for verb, group, resource, _ in of_others}
    of_pytorchjobs = {right for right in of_launcher if right[0] != "trainer.kubeflow.org"}
    assert used - {("trainer.kubeflow.org", "trainjobs", "list")} == of_pytorchjobs
    assert of_launcher == {(group, f"{resource}/{sub}" if sub else resource, verb) for verb, group, resource, sub in NEEDED}


def test_a_trainjob_has_the_rights_of_a_pytorchjob() -> None:
    verbs = {group: {verb for of, _, verb in granted() if of == group} for group in ("kubeflow.org", "trainer.kubeflow.org")}
    assert verbs["kubeflow.org"] == verbs["trainer.kubeflow.org"]
