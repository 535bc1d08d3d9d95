"""The gate against a real registry: who becomes champion, what the versions say of it, and `components.promote`."""

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from support import run_module

from components.errors import UserError
from components.promote.stage import promote
from components.register.stage import register
from components.registry.comparison import compare
from components.registry.facing import face
from components.tasks.table import TASKS

Variant = Callable[..., Path]


def champion(name: str, alias: str = "champion") -> str:
    return str(mlflow.MlflowClient().get_model_version_by_alias(name, alias).version)


def test_a_model_becomes_champion_only_if_it_is_not_worse(
    tracking: str, trained: Callable[[str], Path], variant: Variant
) -> None:
    def registered(right: int) -> str:
        done = register(model_dir=trained("sst2"), evaluation_dir=variant(right), name="gated", champion_margin=0.05)
        return str(done["version"])

    client = mlflow.MlflowClient()
    assert (registered(40), champion("gated"), champion("gated", "best")) == ("1", "1", "1")
    assert client.get_model_version("gated", "1").tags["gate.reason"] == "there is no champion yet"
    assert (registered(28), champion("gated")) == ("2", "1")
    assert client.get_model_version_by_alias("gated", "challenger").version in (2, "2")
    tags = client.get_model_version("gated", "2").tags
    assert (tags["gate"], tags["gate.champion"]) == ("refused", "1")
    assert json.loads(tags["gate.decision"])["comparison"]["champion_only"] == 12
    description = client.get_model_version("gated", "2").description
    assert description is not None
    assert "**Gate: stays challenger: shown to be worse than version 1" in description
    assert "difference -0.2400" in description
    assert (registered(49), champion("gated"), champion("gated", "best")) == ("3", "3", "3")

    with pytest.raises(UserError, match="gated version 2 stays challenger: shown to be worse"):
        promote(model_uri="models:/gated/2", champion_margin=0.05)
    with pytest.raises(UserError, match="gated version 1 stays challenger: shown to be worse"):
        promote(model_uri="models:/gated/1", champion_margin=0.5)
    assert champion("gated") == "3"
    promote(model_uri="models:/gated/1", champion_rule="replace", champion_reason="version 3 answers too slowly")
    assert (champion("gated"), champion("gated", "best")) == ("1", "3")
    assert promote(model_uri="models:/gated@champion") == "it is the champion"
    tags = client.get_model_version("gated", "1").tags
    assert (tags["gate.champion"], tags["gate.best"]) == ("3", "3")  # what it took the place of is not forgotten
    assert tags["gate.reason"] == "it replaces version 3: version 3 answers too slowly"
    assert registered(46) == "4"  # not worse than the champion, but than the best
    assert champion("gated") == "1"
    assert "of version 3, the best champion so far" in client.get_model_version("gated", "4").tags["gate.reason"]


def test_a_registry_of_before_has_its_champion_for_the_best(
    tracking: str, trained: Callable[[str], Path], variant: Variant
) -> None:
    def registered(right: int) -> None:
        register(model_dir=trained("sst2"), evaluation_dir=variant(right), name="older", champion_margin=0.2)

    registered(45)
    mlflow.MlflowClient().delete_registered_model_alias("older", "best")
    registered(44)
    assert (champion("older"), champion("older", "best")) == ("2", "1")


def test_a_champion_of_other_rows_is_asked_anew_once(
    tracking: str, trained: Callable[[str], Path], evaluated: Callable[[str], Path], variant: Variant
) -> None:
    """Its answers are those of its own evaluation, since the rows that are said to be others are the same."""
    register(model_dir=trained("sst2"), evaluation_dir=evaluated("sst2"), name="grown", auto_promote=False)
    mlflow.MlflowClient().set_registered_model_alias("grown", "champion", "1")
    evaluation = variant(49, other_rows=True, trained_on=5)
    done = register(model_dir=trained("sst2"), evaluation_dir=evaluation, name="grown", auto_promote=False)
    comparison = done["decision"].comparison
    assert (comparison["scored_anew"], comparison["rows"]) == (True, 45)
    same = face(mlflow.MlflowClient(), "grown", variant(49, trained_on=5), "2", evaluated("sst2"), "1")
    direct = compare(TASKS["sst2"], same.challenger, same.rival, 0.01)
    assert comparison["difference"] == pytest.approx(direct["difference"])
    assert (comparison["champion_only"], comparison["challenger_only"]) == (direct["champion_only"], direct["challenger_only"])
    assert "on these validation rows anew, 45 rows, without 5 that this one was trained on" in str(done["decision"])

    run_id = done["run_id"]
    assert [it.path for it in mlflow.MlflowClient().list_artifacts(run_id, "rivals")] == ["rivals/1.parquet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow.pyfunc, "load_model", None)  # who would ask again fails
        promote(model_uri="models:/grown/2")
    assert champion("grown") == "2"


def test_a_champion_that_was_stored_before_rows_had_digests_is_not_compared_on_others(
    tracking: str, trained: Callable[[str], Path], variant: Variant
) -> None:
    old = variant(40)
    (old / "trained_on.parquet").unlink()
    with pytest.raises(UserError, match="stored before rows had digests"):
        face(mlflow.MlflowClient(), "never", variant(48, other_rows=True), "2", old, "1")


def test_a_champion_whose_model_is_gone_can_be_replaced_for_a_reason(
    tracking: str, trained: Callable[[str], Path], evaluated: Callable[[str], Path], variant: Variant
) -> None:
    register(model_dir=trained("sst2"), evaluation_dir=evaluated("sst2"), name="gone", auto_promote=False)
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("gone", "champion", "1")
    model = mlflow.get_logged_model(str(client.get_model_version("gone", "1").source).removeprefix("models:/"))
    (Path(model.artifact_location.removeprefix("file://")) / "MLmodel").unlink()
    evaluation = variant(48, other_rows=True)
    done = register(model_dir=trained("sst2"), evaluation_dir=evaluation, name="gone")
    assert champion("gone") == "1"
    assert "not comparable with version 1: its model cannot be asked: " in str(done["decision"])
    assert "--champion-rule replace" in str(done["decision"])
    promote(model_uri="models:/gone/2", champion_rule="replace", champion_reason="its files were deleted")
    assert (champion("gone"), champion("gone", "best")) == ("2", "2")


def test_a_server_that_is_away_is_code_75() -> None:
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    done = run_module("components.promote", "--model-uri", "models:/gated/1", **away)  # type: ignore[arg-type]
    assert done.returncode == 75, done.stderr
    assert "error: MLflow at http://127.0.0.1:9 does not answer" in done.stderr


def test_without_auto_promote_the_gate_only_says_what_it_would_do(
    tracking: str, trained: Callable[[str], Path], variant: Variant
) -> None:
    done = register(model_dir=trained("sst2"), evaluation_dir=variant(41), name="by-hand", auto_promote=False)
    assert done["decision"].promote
    with pytest.raises(mlflow.exceptions.MlflowException):
        champion("by-hand")
    command = run_module("components.promote", "--model-uri", "models:/by-hand@challenger", MLFLOW_TRACKING_URI=tracking)
    assert command.returncode == 0, command.stderr
    assert champion("by-hand") == "1"


def test_a_champion_that_was_never_evaluated_is_not_replaced_unseen(
    tracking: str, trained: Callable[[str], Path], variant: Variant
) -> None:
    client = mlflow.MlflowClient()
    client.create_registered_model("foreign")
    client.create_model_version("foreign", "/somewhere")
    client.set_registered_model_alias("foreign", "champion", "1")
    done = register(model_dir=trained("sst2"), evaluation_dir=variant(45), name="foreign")
    assert champion("foreign") == "1"
    assert "version 1 of foreign has no evaluation" in str(done["decision"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model-uri", "gated"], "error: model_uri is 'gated': give models:/NAME/VERSION or models:/NAME@ALIAS"),
        (["--model-uri", "models:/nobody/1"], "has no models:/nobody/1"),
        (["--model-uri", "models:/nobody/1", "--champion-margin", "2"], "error: champion_margin is 2.0: give 0 to 1"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(tracking: str, arguments: list[str], message: str) -> None:
    done = run_module("components.promote", *arguments, MLFLOW_TRACKING_URI=tracking)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
