"""What a namespace's ConfigMap and Secrets hold are variables of the programs that they are mounted in."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT

from components import image
from components.image import take_mounted_settings
from components.launch.namespace import MOUNTS

NAMES = ("AWS_REGION", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "HTTPS_PROXY")


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A volume as the kubelet makes it: its files are links through ..data, which it swaps when they change."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)

    def mount(source: str, **files: str) -> Path:
        folder = tmp_path / source
        state = folder / "..2026_07_01_10_00_00.123456789"
        state.mkdir(parents=True)
        (folder / "..data").symlink_to(state.name)
        for name, content in files.items():
            (state / name).write_text(content)
            (folder / name).symlink_to(f"..data/{name}")
        return tmp_path

    return mount


def test_every_file_is_a_variable(mounted: Callable[..., Path]) -> None:
    mounted("config", AWS_REGION="eu-west-1", HTTPS_PROXY="http://proxy:3128\n")
    folder = mounted("s3", AWS_SECRET_ACCESS_KEY=" with blanks \n\n")
    before = set(os.environ)
    take_mounted_settings(folder)
    assert {name: os.environ[name] for name in NAMES if name in os.environ} == {
        "AWS_REGION": "eu-west-1",
        "HTTPS_PROXY": "http://proxy:3128",  # as `kubectl create secret --from-file` keeps a file's last line
        "AWS_SECRET_ACCESS_KEY": " with blanks ",
    }
    assert set(os.environ) - before == {"AWS_REGION", "HTTPS_PROXY", "AWS_SECRET_ACCESS_KEY"}


def test_what_is_set_already_stays(mounted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "of-the-step")
    monkeypatch.setenv("HTTPS_PROXY", "")
    take_mounted_settings(mounted("config", AWS_REGION="eu-west-1", HTTPS_PROXY="http://proxy:3128"))
    assert (os.environ["AWS_REGION"], os.environ["HTTPS_PROXY"]) == ("of-the-step", "")


def test_what_no_variable_can_hold_is_named_and_stops_nothing(
    mounted: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = mounted("config", AWS_REGION="eu\0west", HTTPS_PROXY="http://proxy:3128")
    (folder / "config" / "AWS_SECRET_ACCESS_KEY").write_bytes(b"\xff\xfe")
    take_mounted_settings(folder)
    assert os.environ["HTTPS_PROXY"] == "http://proxy:3128"
    assert not {"AWS_REGION", "AWS_SECRET_ACCESS_KEY"} & set(os.environ)
    assert capsys.readouterr().err.count("is no text, and no environment variable") == 2


def test_what_is_no_variable_is_left_alone(mounted: Callable[..., Path]) -> None:
    folder = mounted("s3", **{"AWS_REGION": "eu-west-1", "ca.crt": "x", "with-dash": "x", "1ST": "x", ".hidden": "x"})
    (folder / "s3" / "FOLDER").mkdir()
    (folder / "s3" / "GONE").symlink_to("..data/GONE")
    (folder / "STRAY").write_text("no source's")
    before = set(os.environ)
    take_mounted_settings(folder)
    assert set(os.environ) - before == {"AWS_REGION"}


def test_a_namespace_may_have_none_of_them(tmp_path: Path) -> None:
    before = dict(os.environ)
    take_mounted_settings(tmp_path / "absent")
    (tmp_path / "s3").mkdir()  # an optional volume without a source
    take_mounted_settings(tmp_path)
    assert dict(os.environ) == before


def test_commands_take_what_lies_in_the_folder_that_pods_mount_it_in(mounted: Callable[..., Path]) -> None:
    folder = mounted("config", MLFLOW_TRACKING_TOKEN="from-the-namespace")
    code = (
        "import sys; from pathlib import Path; from components import cli, image\n"
        "image.take_mounted_settings.__defaults__ = (Path(sys.argv.pop()),)\n"
        "def show() -> None:\n    import os; print(os.environ['MLFLOW_TRACKING_TOKEN'])\n"
        "cli.run(show, 'show')"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "from-the-namespace\n", done.stderr
    assert {str(Path(path).parent) for _, path in MOUNTS.values()} == {str(image.SETTINGS_DIR)}
