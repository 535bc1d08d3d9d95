"""What the Role grants."""

from manifests import granted, written

NEVER = {"secrets", "configmaps", "roles", "rolebindings", "serviceaccounts", "pods/exec", "*"}


def test_the_role_grants_jobs_and_a_look_at_their_pods_and_nothing_else() -> None:
    own = {("kubeflow.org", "pytorchjobs"), ("trainer.kubeflow.org", "trainjobs")}
    assert {(group, resource) for group, resource, verb in granted() if verb in ("create", "delete")} == own
    assert {verb for _, _, verb in granted()} <= {"create", "get", "list", "watch", "delete"}
    assert not {resource for _, resource, _ in granted()} & NEVER


def test_the_binding_binds_that_role() -> None:
    (role,) = (document for document in written() if document["kind"] == "Role")
    (binding,) = (document for document in written() if document["kind"] == "RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
