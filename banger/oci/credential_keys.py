"""Finding the entry of a credential file for an image: Docker's keys, podman's, and older forms of both.

``docker login`` files under the host, for Docker Hub under a URL, and in former times under URLs of all hosts.
``podman login`` files under the host or a path below it (containers-auth.json(5)). Helpers are filed likewise.
"""

from __future__ import annotations

from collections.abc import Iterable

from banger.oci.reference import DOCKER_HUB

_HUB_KEY = "https://index.docker.io/v1/"
#: Names of Docker Hub, in the order in which they are looked for.
_HUB_HOSTS = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
#: Paths that belong to the API, not to a repository, and how telling they are.
_API_PATHS = {"": 0, "v2": 1, "v1": 2}


def server_of(domain: str) -> str:
    """What helpers know a registry by."""
    return _HUB_KEY if domain == DOCKER_HUB else domain


def matching_keys(keys: Iterable[str], domain: str, repository: str = "") -> list[str]:
    """Those of ``keys`` that are meant for a repository, the best first.

    The most specific path wins, then the host itself, then what somebody once filed under a URL of the host.

    Args:
        keys: of a credential file; any text.
        domain: the registry, perhaps with a port, which must be the same.
        repository: its path there; empty for keys of whole hosts only.
    """
    ranks = {key: rank for key in keys if (rank := _rank(key, domain, repository)) is not None}
    return sorted(ranks, key=lambda key: ranks[key])


def _rank(key: str, domain: str, repository: str) -> tuple[int, ...] | None:
    """How well a key fits, less is better; ``None`` if it does not."""
    if domain == DOCKER_HUB and key == _HUB_KEY:
        return 1, 0
    scheme, separator, rest = key.rpartition("://")
    host, _, path = (rest if separator else key).partition("/")
    path = path.strip("/")
    hosts = _HUB_HOSTS if domain == DOCKER_HUB else (domain.lower(),)
    if host.lower() not in hosts or scheme.lower() not in ("", "https", "http"):
        return None
    likeness = (hosts.index(host.lower()), int(host != host.lower()))
    if not separator and path and f"{repository}/".startswith(f"{path}/"):
        return 0, -path.count("/"), *likeness
    if not separator and not path:
        return 1, 1, *likeness
    if separator or path in _API_PATHS:
        return 2, int(scheme.lower() == "http"), _API_PATHS.get(path, len(_API_PATHS)), *likeness
    return None
