"""What stands at a place, in one digest: by it a run that was resolved, and Kubeflow's cache, know whether it still does."""

from pathlib import Path

from components.artifacts.folders import combined_digest, file_digest
from components.artifacts.provenance import is_remote
from components.errors import UserError
from components.storage import transfer


def state_of(place: str) -> str:
    """'' where nothing stands.

    Of a store: names, sizes and versions, for which one listing does. Of a folder or file here: names and sha256, but for what
    is hidden, as what is still being written is.
    """
    if is_remote(place):
        return transfer.state_of(place)
    root = Path(place)
    if root.is_file():
        return file_digest(root)
    names = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    shown = {name: path for name, path in names.items() if not name.startswith(".") and "/." not in name}
    return combined_digest({name: file_digest(path) for name, path in shown.items()}) if shown else ""


def check_state(place: str, state: str) -> None:
    """UserError where what stands there is no longer in the state that it was found in; '' asks nothing.

    Where nothing stands here, who reads it says so.
    """
    if state and (is_remote(place) or Path(place).exists()) and state_of(place) != state:
        raise UserError(f"{place} has changed since this run was resolved: submit it again")
