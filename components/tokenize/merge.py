"""The parts of a tokenized source as one folder, the same to the byte as if one process had written it.

python -m components.tokenize.merge --part-dirs PART ... --output-dir DATA
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from components import cli
from components.artifacts.folders import Artifact, Manifest, code_digest, link, read_manifest
from components.artifacts.names import STATISTICS, TOKENIZER
from components.errors import UserError
from components.parameters import documented
from components.tasks.table import Task
from components.tokenize.counts import Counts, name_and_add, show
from components.tokenize.stage import OF_A_PART, PART


@documented
def merge(*, part_dirs: list[Path], output_dir: Path) -> Manifest:
    """Put the parts that components.tokenize wrote with --part and --num-parts together.

    Tokenizes nothing: the files are linked (or copied, to another file system) and the counts are added.
    """
    if not part_dirs:
        raise UserError("no parts: give the folders that components.tokenize wrote with --part 0, 1 and so on")
    parts = [(folder, read_manifest(folder, PART)) for folder in part_dirs]
    _check(parts)
    _, first = parts[0]
    parameters = {name: value for name, value in first["parameters"].items() if name not in OF_A_PART}
    artifact = Artifact(output_dir, "tokenize", parameters, first["inputs"], first["origins"])
    if manifest := artifact.cached():
        return manifest
    with artifact.building() as folder:
        for part, manifest in parts:
            for name in manifest["files"]:
                path = folder / name
                path.parent.mkdir(exist_ok=True)
                if name != STATISTICS and not path.exists():  # each part has the tokenizer
                    link(part / name, path)
        counted = [json.loads((part / STATISTICS).read_text()) for part in part_dirs]
        shards = {
            split: {int(shard): Counts(**counts) for each in counted for shard, counts in each["splits"][split].items()}
            for split in counted[0]["splits"]
        }
        statistics = {**counted[0], "splits": name_and_add(folder, Task.read(folder), shards)}
        (folder / STATISTICS).write_text(json.dumps(statistics, indent=1) + "\n")
    show(statistics["splits"])
    return artifact.manifest()


def _check(parts: list[tuple[Path, Manifest]]) -> None:
    """UserError unless these are all the parts of one whole, each of them once."""
    folder, first = parts[0]
    if first["code"] != code_digest("tokenize"):
        raise UserError(f"{folder} was written by another version of components.tokenize: write the parts again")
    for other, manifest in parts[1:]:
        if different := [name for name, value in _shared(first).items() if _shared(manifest)[name] != value]:
            raise UserError(f"{other} is no part of what {folder} is a part of: they differ in {', '.join(different)}")
    there = Counter(manifest["parameters"]["part"] for _, manifest in parts)
    expected = range(first["parameters"]["num_parts"])
    if twice := [str(part) for part, count in there.items() if count > 1]:
        raise UserError(f"part {', '.join(twice)} is given more than once: give each of the {len(expected)} parts once")
    if missing := [str(part) for part in expected if part not in there]:
        raise UserError(f"part {', '.join(missing)} of {len(expected)} is missing: give all parts, counted from 0")


def _shared(manifest: Manifest) -> dict[str, Any]:
    """What all parts of a whole have in common."""
    parameters = {name: value for name, value in manifest["parameters"].items() if name != "part"}
    files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    tokenizer = {name: digest for name, digest in files.items() if name.startswith(TOKENIZER)}
    return {**parameters, **manifest["inputs"], "code": manifest["code"], "tokenizer": tokenizer}


if __name__ == "__main__":
    cli.run(merge, "python -m components.tokenize.merge")
