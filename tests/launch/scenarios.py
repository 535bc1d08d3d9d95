"""What a launcher has to report of each recording.

Outcomes: succeeded; user, the user can mend it; retry, the same may work later; bug, the training program failed; cancelled,
the launcher itself was told to stop; carries_on, the recording ends while the job runs.
"""

from dataclasses import dataclass, field

from components.parameters import JobKind

# Seconds of the cluster's clock: divide by the replay's speed. Each scenario may have its own.
CLOCKS = {"start_timeout": 60.0, "job_timeout": 600.0, "max_restarts": 3, "api_patience": 30.0}


@dataclass(frozen=True)
class Scenario:
    name: str
    ranks: int  # pods in all
    outcome: str
    cause: tuple[str, ...] = ()  # words of the one-line cause, in any case of letters
    exit_codes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # by rank, in order, as far as the cause needs them
    restarts: int = 0  # of the rank that restarted most often
    remarks: tuple[str, ...] = ()  # words of the log or summary
    clocks: dict[str, float] = field(default_factory=dict)
    stop_after: float | None = None  # when the test tells the launcher to stop
    elastic: bool = False  # no Master
    stored: bool | None = None  # whether the output stands whole in the store; by default where it succeeded
    by: float | None = None  # the launcher has its verdict by then

    @property
    def kind(self) -> JobKind:
        return "trainjob" if "-trainjob-" in self.name else "pytorchjob"

    @property
    def is_stored(self) -> bool:
        return self.outcome == "succeeded" if self.stored is None else self.stored


@dataclass(frozen=True)
class Refusal:
    """A recorded answer to the creation of a job. Nothing was created."""

    scenario: str
    answer: str
    outcome: str
    cause: tuple[str, ...] = ()


NO_WORKERS = ('violates PodSecurity "restricted', "init-pytorch", "allowPrivilegeEscalation")
NO_IMAGE = ("registry.example.com/team/does-not-exist:1", "not found")

SCENARIOS = (
    Scenario("01-success-1master-2workers", 3, "succeeded", exit_codes={"master-0": (0,), "worker-0": (0,), "worker-1": (0,)}),
    # The others run on, until the launcher stops them.
    Scenario(
        "02-worker-exit-1", 3, "bug", ("worker-1", "exited with 1"), {"worker-1": (1,)}, remarks=("stopped before its end",)
    ),
    # The third run was killed while healthy: 143 is not the cause.
    Scenario(
        "03-worker-exit-1-onfailure-backofflimit",
        2,
        "bug",
        ("worker-0", "exited with 1"),
        {"worker-0": (1, 1, 143)},
        restarts=2,
    ),
    # The job says Running for ever: the launcher's own limit ends it.
    Scenario(
        "03b-crash-loop-without-backofflimit",
        2,
        "bug",
        ("worker-0", "exited with 1", "restart"),
        {"worker-0": (1, 1, 1)},
        restarts=2,
        clocks={"max_restarts": 2},
    ),
    Scenario(
        "04-master-exit-1-while-workers-run",
        3,
        "bug",
        ("master-0", "exited with 1"),
        {"master-0": (1,)},
        remarks=("stopped before its end",),
    ),
    Scenario(
        "05-sigkill-137-exitcode-policy",
        2,
        "succeeded",
        exit_codes={"master-0": (0,), "worker-0": (137, 0)},
        restarts=1,
        remarks=("worker-0", "SIGKILL"),
    ),
    Scenario("05b-exit-1-exitcode-policy", 2, "bug", ("worker-0", "exited with 1"), {"worker-0": (1,)}),
    Scenario("06-oomkilled", 2, "user", ("out of memory", "worker-0", "64Mi"), {"worker-0": (137,)}),
    # Restarts that backoffLimit does not count, and that will not help.
    Scenario(
        "06b-oomkilled-exitcode-policy",
        2,
        "user",
        ("out of memory", "worker-0", "64Mi"),
        {"worker-0": (137,)},
    ),
    Scenario("07-image-cannot-be-pulled", 2, "user", NO_IMAGE, clocks={"start_timeout": 30}),
    Scenario("08-unschedulable", 2, "retry", ("Insufficient nvidia.com/gpu",), clocks={"start_timeout": 30}),
    # The Master runs, and the job has no status at all.
    Scenario("09-psa-restricted-init-container-refused", 3, "user", NO_WORKERS, clocks={"start_timeout": 30}),
    # A Master that ends well is no success without its Workers.
    Scenario("09b-psa-restricted-master-finishes", 3, "user", NO_WORKERS, {"master-0": (0,)}, clocks={"start_timeout": 30}),
    # With a limit of our own, then with the operator's, which it keeps 51 s late.
    Scenario("10-active-deadline-exceeded", 2, "user", ("longer than its limit",), clocks={"job_timeout": 10}),
    Scenario("10-active-deadline-exceeded", 2, "retry", ("longer than specified deadline",), {"master-0": (0,)}),
    Scenario("11-deleted-while-running", 3, "retry", ("deleted",)),
    Scenario("11-deleted-while-running", 3, "cancelled", stop_after=6.0),
    Scenario("11b-deleted-while-running-foreground", 2, "retry", ("deleted",)),
    Scenario("11b-deleted-while-running-foreground", 2, "cancelled", stop_after=5.25),
    # The time that a job is suspended is not the time that its ranks take to start.
    Scenario(
        "12-suspended-then-resumed",
        2,
        "succeeded",
        exit_codes={"master-0": (0,), "worker-0": (0,)},
        remarks=("suspended", "pods up"),
        clocks={"start_timeout": 7},
    ),
    # Ends by suspension are no failures and no restarts.
    Scenario(
        "12b-suspended-while-running",
        2,
        "succeeded",
        exit_codes={"master-0": (143, 0), "worker-0": (143, 0)},
        remarks=("suspended", "pods up"),
    ),
    Scenario("13-elastic-workers-only", 2, "succeeded", exit_codes={"worker-0": (0,), "worker-1": (0,)}, elastic=True),
    Scenario(
        "14-worker-pod-deleted",
        3,
        "succeeded",
        exit_codes={"master-0": (0,), "worker-0": (0,), "worker-1": (143, 0)},
        restarts=1,
        remarks=("worker-1", "deleted"),
    ),
    Scenario(
        "14b-worker-pod-evicted-by-api",
        3,
        "succeeded",
        exit_codes={"master-0": (0,), "worker-0": (0,), "worker-1": (143, 0)},
        restarts=1,
        remarks=("worker-1", "evicted"),
    ),
    Scenario(
        "14c-worker-preempted-by-priority",
        2,
        "succeeded",
        exit_codes={"master-0": (0,), "worker-0": (143, 0)},
        restarts=1,
        remarks=("worker-0", "preempted"),
    ),
    # Failed before any container has ended; all of them end by 143 afterwards.
    Scenario("14d-worker-pod-deleted-restart-never", 3, "retry", ("worker-1", "deleted")),
    # Pods and logs go with success, the job 9 s later.
    Scenario("15-clean-pod-policy-all-success-ttl", 2, "succeeded", exit_codes={"master-0": (0,), "worker-0": (0,)}),
    Scenario(
        "21-master-succeeds-while-workers-run",
        3,
        "succeeded",
        exit_codes={"master-0": (0,)},
        remarks=("stopped before its end",),
    ),
    Scenario("22-quota-exceeded", 4, "user", ("exceeded quota", "limited: pods=2"), clocks={"start_timeout": 40}),
    # A launcher refuses names as long as the recorded one before it creates anything; played under a short one.
    Scenario("23-job-name-too-long", 2, "user", ("no more than 63 characters",), clocks={"start_timeout": 20}),
    # The streams end as if the containers had; logs answer 500 till the node is back, and both pods are replaced then.
    Scenario(
        "24-node-lost", 2, "carries_on", exit_codes={"master-0": (143,), "worker-0": (143,)}, restarts=1, remarks=("node",)
    ),
    # Nothing is evicted: the same containers run on, and their logs have to be opened again.
    Scenario("24b-only-node-lost-and-back", 2, "carries_on", remarks=("node",)),
    # For 13 s every pod has succeeded and the job has not.
    Scenario("25-controller-down-while-running", 2, "succeeded", exit_codes={"master-0": (0,), "worker-0": (0,)}),
    # A Master that ended well and left nothing has not done its work.
    Scenario("25-controller-down-while-running", 2, "bug", ("there is no output",), stored=False),
    # What the survivor says of it, it says before the lost worker's replacement is heard of.
    Scenario(
        "40-elastic-worker-0-pod-deleted",
        2,
        "retry",
        ("worker-0", "deleted from outside"),
        {"worker-0": (143,), "worker-1": (1,)},
        elastic=True,
        by=90,
    ),
    # The operator says Succeeded with the first Worker's end, and replaces nothing from then on.
    Scenario(
        "41-elastic-worker-killed-after-succeeded",
        2,
        "retry",
        ("worker-0", "SIGKILL"),
        {"worker-0": (137,), "worker-1": (0,)},
        elastic=True,
        by=214,
    ),
    Scenario(
        "41-elastic-worker-killed-after-succeeded",
        2,
        "succeeded",
        ("output is whole", "worker-0", "SIGKILL"),
        {"worker-0": (137,), "worker-1": (0,)},
        elastic=True,
        by=214,
    ),
    Scenario("51-trainjob-success-2-nodes", 2, "succeeded", exit_codes={"node-0": (0,), "node-1": (0,)}),
    # Restarts in place come before the job is said to have failed, if it ever is.
    Scenario("52-trainjob-rank-exception", 2, "bug", ("node-1", "ZeroDivisionError"), {"node-1": (1,)}, by=40),
    Scenario("53-trainjob-out-of-memory", 2, "user", ("out of memory", "node-"), {"node-1": (1,)}, by=20),
    Scenario("54-trainjob-container-killed", 2, "retry", ("node-1", "SIGKILL"), {"node-1": (137,)}, by=40),
    # The other node ends by itself because of it, and restarts; so does the replacement come while the first still ends.
    Scenario("55-trainjob-pod-deleted", 2, "retry", ("node-1", "deleted from outside"), {"node-1": (143,)}, by=130),
    Scenario("56-trainjob-pod-evicted", 2, "retry", ("node-1", "evicted"), {"node-0": (143,)}, by=130),
    Scenario("57-trainjob-job-deleted-while-running", 2, "retry", ("deleted by someone else",)),
    Scenario(
        "58-trainjob-quota-exceeded",
        2,
        "user",
        ("exceeded quota", "gpus"),
        remarks=("pods up; node-0 no pod", "a pod is forbidden: exceeded quota"),
        clocks={"start_timeout": 30},
    ),
    Scenario(
        "59-trainjob-pod-security-refused",
        2,
        "user",
        ('violates PodSecurity "restricted', "hostPath"),
        remarks=("a pod is forbidden: violates PodSecurity",),
        clocks={"start_timeout": 30},
    ),
)

REFUSALS = (
    Refusal("16-service-account-forbidden", "create", "user", ("create", "pytorchjobs")),
    Refusal("16-service-account-forbidden", "unauthorized-bad-token", "user", ("Unauthorized",)),
    Refusal("18-invalid-manifests", "wrong-container-name", "user", ("at least one container with name pytorch",)),
    Refusal("18-invalid-manifests", "two-masters", "user", ("pytorchReplicaSpecs[Master].replicas", "must be 1")),
    Refusal("18-invalid-manifests", "missing-image", "user", ("containers[0].image", "Required value")),
    Refusal("18-invalid-manifests", "worker-replicas-negative", "user", ("Worker.replicas", "non-negative integer")),
    Refusal("18-invalid-manifests", "worker-replicas-zero", "user", ("pytorchReplicaSpecs[Worker].replicas", "at least 1")),
    Refusal("18-invalid-manifests", "unknown-field-strict", "user", ('unknown field "spec.replicaSpecs"',)),
    Refusal("18-invalid-manifests", "missing-containers", "user", ("template.spec.containers", "Required value")),
    Refusal("18-invalid-manifests", "replicas-wrong-type", "user", ("Master.replicas", "must be of type integer")),
    Refusal("18-invalid-manifests", "replica-type-chief", "user", ("Unsupported value", "Chief")),
    Refusal("18-invalid-manifests", "name-70-characters", "user", ("no more than 63 characters",)),
    Refusal("18-invalid-manifests", "namespace-absent", "user", ("namespaces", "not found")),
    Refusal("18-invalid-manifests", "resource-not-installed", "user", ("PyTorchJob",)),  # no operator: plain text, no Status
    Refusal("18b-webhook-unavailable", "create", "retry", ("webhook",)),
)
