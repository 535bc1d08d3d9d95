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

Variant = Callable[..., Path]


def champion(name: str) -> str:
    return str(mlflow.MlflowClient().get_model_version_by_alias(name, "champion").version)


def test_a_model_becomes_champion_only_if_it_is_not_worse(
    tracking: str, trained: Callable[[str], Path], variant: Variant
) -> None:
    def registered(right: int) -> str:
        done = register(model_dir=trained("sst2"), evaluation_dir=variant(right), name="gated", champion_margin=0.05)
        return str(done["version"])

    client = mlflow.MlflowClient()
    assert (registered(40), champion("gated")) == ("1", "1")
    assert client.get_model_version("gated", "1").tags["gate.reason"] == "there is no champion yet"
    assert (registered(28), champion("gated")) == ("2", "1")
    assert client.get_model_version_by_alias("gated", "challenger").version in (2, "2")
    tags = client.get_model_version("gated", "2").tags
    assert (tags["gate"], tags["gate.champion"]) == ("refused", "1")
    assert json.loads(tags["gate.decision"])["comparison"]["champion_only"] == 12
    description = client.get_model_version("gated", "2").description
    assert description is not None
    assert "**Gate: stays challenger: not shown to be within 0.05 of version 1" in description
    assert "difference -0.2400" in description
    assert (registered(49), champion("gated")) == ("3", "3")

    with pytest.raises(UserError, match="gated version 2 stays challenger: not shown"):
        promote(model_uri="models:/gated/2", champion_margin=0.05)
    assert champion("gated") == "3"
    promote(model_uri="models:/gated/1", champion_margin=0.5)
    assert champion("gated") == "1"
    assert promote(model_uri="models:/gated@champion") == "it is the champion"
    assert client.get_model_version("gated", "1").tags["gate.champion"] == "3"  # what it won against is not forgotten


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
