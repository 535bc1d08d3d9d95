"""What a client asks of a Kubernetes API server, read from a request's method and path."""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from recorded import ApiError, Json

TRUE = ("1", "true", "True")
PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+))?(?:/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<subresource>.+))?)?)?"
)
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Request(NamedTuple):
    """`status` is 0 where the client got no answer; `resource` is empty for what the server says of itself."""

    method: str
    path: str  # with the query
    verb: str
    group: str
    resource: str
    subresource: str
    status: int
    namespace: str
    name: str
    query: dict[str, str]

    def endpoint(self) -> tuple[str, ...]:
        return self.verb, self.group, self.resource, self.subresource

    def within(self) -> str:
        """The resource as access rules write it, e.g. pods/log."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    def qualified(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource

    def details(self) -> Json:
        named = {"name": self.name} if self.name else {}
        return named | ({"group": self.group} if self.group else {}) | {"kind": self.resource}


def parse(method: str, path: str, served: Mapping[str, set[str]]) -> tuple[Request, bool]:
    """The request, and whether the server serves such a path."""
    parts = urlsplit(path)
    match = PATH.fullmatch(parts.path)
    found = {key: value or "" for key, value in match.groupdict().items()} if match else dict.fromkeys(PATH.groupindex, "")
    if found["namespace"] and not found["resource"]:
        found |= {"resource": "namespaces", "name": found["namespace"], "namespace": ""}
    query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    verb = VERBS.get(method, "get")
    if method == "GET" and found["resource"] and not found["name"]:
        verb = "watch" if query.get("watch") in TRUE else "list"
    resources = served.get("/".join(filter(None, (found["group"], found["version"] or "v1"))))
    is_served = resources is not None and (not found["group"] or found["resource"] in resources | {""})
    del found["version"]
    return Request(method, path, verb, status=0, query=query, **found), match is not None and is_served


def selected(r: Request, item: Json) -> bool:
    """Whether the request's label and field selectors match."""
    labels = item["metadata"].get("labels", {})
    for term in filter(None, re.split(r",(?![^(]*\))", r.query.get("labelSelector", ""))):
        if within := re.fullmatch(r"\s*(\S+)\s+(in|notin)\s+\((.*)\)\s*", term):
            values = [value.strip() for value in within[3].split(",")]
            matches = (labels.get(within[1]) in values) == (within[2] == "in")
        elif equal := re.fullmatch(r"\s*([^=!\s]+)\s*(==?|!=)\s*(\S*)\s*", term):
            matches = (labels.get(equal[1]) == equal[3]) == (equal[2] != "!=")
        else:
            matches = (term.strip().lstrip("!") in labels) != term.strip().startswith("!")
        if not matches:
            return False
    for term in filter(None, r.query.get("fieldSelector", "").split(",")):
        field, operator, wanted = re.split(r"(!=|==?)", term, maxsplit=1)
        value: object = item
        for key in field.split("."):
            value = value.get(key, "") if isinstance(value, dict) else ""
        if (str(value) == wanted) == (operator == "!="):
            return False
    return True


def check_fields(r: Request) -> None:
    """Custom resources can be selected by name and namespace only."""
    for term in filter(None, r.query.get("fieldSelector", "").split(",")):
        field = re.split(r"!?=", term)[0]
        if r.group and field not in ("metadata.name", "metadata.namespace"):
            raise ApiError(400, "BadRequest", f"field label not supported: {field}")


def kind_of(resource: str) -> str:
    return {"pytorchjobs": "PyTorchJob", "trainjobs": "TrainJob"}.get(resource, resource.rstrip("s").capitalize())
