"""What a registered model was made of, whether that is still the same, and what else came from it.

python -m components.lineage show | verify | impact | emit ...
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import cyclopts

from components.errors import UserError, exit_codes

AsJson = Annotated[bool, cyclopts.Parameter(name="--json", negative=())]
NAME = "python -m components.lineage"

app = cyclopts.App(name=NAME, help=__doc__, version_flags=[], help_format="plaintext", result_action="return_value")
app.default_parameter = cyclopts.Parameter(negative_iterable=())


@app.command
def show(model_uri: str, *, as_json: AsJson = False, html: Path | None = None) -> None:
    """Print the tree: version, evaluation, model, data, raw files, each with its digest and place.

    Args:
        model_uri: models:/NAME/VERSION or models:/NAME@ALIAS.
        as_json: Print everything that is known, as JSON.
        html: Write a page to this file instead.
    """
    from components.lineage.show import as_page, as_text
    from components.lineage.tree import read_tree

    version, tree = read_tree(model_uri)
    if html:
        html.write_text(as_page(version, tree))
        print(html)
    elif as_json:
        print(json.dumps({**tree.as_dict(), "aliases": list(version.aliases), "tags": dict(version.tags)}, indent=1))
    else:
        print(as_text(version, tree))


@app.command
def verify(model_uri: str, *, as_json: AsJson = False) -> None:
    """Fetch and hash again everything that can be reached; exit 2 where something is changed or gone.

    Args:
        model_uri: models:/NAME/VERSION or models:/NAME@ALIAS.
        as_json: Print a list of findings instead.
    """
    from components.lineage.tree import read_tree
    from components.lineage.verify import verify_tree

    findings = list(verify_tree(*read_tree(model_uri)))
    if as_json:
        print(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{finding.state:12} {finding.item}{f'  ({finding.detail})' if finding.detail else ''}")
    states = Counter(finding.state for finding in findings)
    counted = ", ".join(f"{number} {state}" for state, number in states.items())
    if states["changed"] or states["gone"]:
        raise UserError(f"{model_uri}: {counted}; the lines above name them")
    if not as_json:
        print(f"\n{model_uri}: {counted}")


@app.command
def impact(digest_or_path: str, *, as_json: AsJson = False) -> None:
    """List every model version that came from a digest, a file or a folder.

    Args:
        digest_or_path: A digest or its first 8 or more digits, a file, a folder that a stage wrote, or a folder of raw files.
        as_json: Print a list instead.
    """
    from components.lineage.impact import digests_of, find_impact

    found = list(find_impact(digests_of(digest_or_path)))
    if as_json:
        listed = [
            {"model_uri": f"models:/{one.name}/{one.version}", "aliases": list(one.aliases), "by": by} for one, by in found
        ]
        print(json.dumps(listed, indent=1))
        return
    for version, place in found:
        aliases = "".join(f" @{alias}" for alias in version.aliases)
        print(f"models:/{version.name}/{version.version}{aliases}  by {place}")
    print(f"{len(found)} version(s)")


@app.command
def emit(model_uri: str, *, to: str) -> None:
    """Tell the tree as OpenLineage events, a START and a COMPLETE for each stage.

    Args:
        model_uri: models:/NAME/VERSION or models:/NAME@ALIAS.
        to: http:// or https:// address of an OpenLineage server, or a file to append to, one event a line.
    """
    from components.lineage.events import send
    from components.lineage.tree import read_tree

    print(f"{send(read_tree(model_uri)[1], to)} events to {to}")


if __name__ == "__main__":
    with exit_codes():
        try:
            app(sys.argv[1:], exit_on_error=False, print_error=False)
        except cyclopts.CycloptsError as error:
            raise UserError(f"{' '.join(str(error).split())} See {NAME} --help.") from None
