"""The wheel's bill of materials: CycloneDX 1.6 JSON, made while the wheel is built.

It names the packages that banger runs with, from the lock file, and the guest agent, which is compiled here, with the C
library that is linked into it. It goes to ``banger-VERSION.dist-info/sboms/`` (PEP 770,
https://peps.python.org/pep-0770/). The same checkout and tools give the same bytes: nothing in it tells when or where
it was made. Hatchling loads this file as a build hook (``[tool.hatch.build.targets.wheel.hooks.custom]``); only what a
bare build environment has is imported.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.markers import Marker

LOCK = Path("requirements") / "runtime.txt"
AGENT = Path("banger") / "guest" / "data" / "banger-agent"
FILE_NAME = "banger.cdx.json"
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?:\s*;\s*(?P<marker>.+?))?\s*\\?\Z")
_HASH = re.compile(r"\s+--hash=sha256:(?P<hex>[0-9a-f]{64})\s*\\?\Z")
#: A comment that says who needs the package: ``# via requests``, or ``# via`` and one line for each; ``-c`` is another
#: lock file whose version was taken.
_VIA = re.compile(r"\s+#(?: via)?(?:\s+(?:-c \S+|(?P<who>[A-Za-z0-9._-]+)(?: \([^()]*\))?))?\Z")
_VERSIONS = (
    "those of the lock file that this version was tested with; an installer may choose others within the ranges of the "
    "wheel's METADATA"
)


class Locked(NamedTuple):
    """One package of a lock file.

    Attributes:
        marker: where it is needed (PEP 508); empty for everywhere.
        hashes: SHA-256 of each file of that release, in hexadecimal.
        needed_by: names of packages, the project's own among them.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    needed_by: tuple[str, ...]

    @property
    def is_of_linux(self) -> bool:
        """False for what only other systems need, where banger does not run: the lock file is for all."""
        systems = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
        return not self.marker or Marker(self.marker).evaluate(systems)

    @property
    def purl(self) -> str:
        """As the package URL specification has it for PyPI."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(text: str) -> list[Locked]:
    """The packages of a lock file as ``make lock`` writes it, by name.

    Raises:
        ValueError: a line is none of what such a file consists of.
    """
    return sorted(_packages(text), key=lambda package: package.name)


def _packages(text: str) -> Iterator[Locked]:
    name, version, marker = "", "", ""
    hashes: list[str] = []
    needed_by: list[str] = []
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if found := _REQUIREMENT.match(line):
            if name:
                yield Locked(name, version, marker, tuple(hashes), tuple(needed_by))
            name, version, marker = found["name"].lower(), found["version"], found["marker"] or ""
            hashes, needed_by = [], []
        elif name and (found := _HASH.match(line)):
            hashes.append(found["hex"])
        elif name and (found := _VIA.match(line)):
            needed_by += [found["who"]] if found["who"] else []
        else:
            raise ValueError(f"not a line of a lock file: {line!r}")
    if name:
        yield Locked(name, version, marker, tuple(hashes), tuple(needed_by))


def bill_of_materials(
    name: str,
    version: str,
    license_expression: str,
    packages: Sequence[Locked],
    carried: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The document (https://cyclonedx.org/docs/1.6/json/); equal arguments give equal documents.

    ``packages`` is what the product runs with, and what comes by itself; ``carried`` are components that are in it,
    with what they consist of as components of theirs.
    """
    root = f"pkg:pypi/{name}@{version}"
    purls = {package.name: package.purl for package in packages}
    needs: dict[str, list[str]] = {root: [], **{purl: [] for purl in purls.values()}}
    for package in packages:
        for who in package.needed_by:
            needs[purls.get(who, root)].append(package.purl)
    for component in carried:
        needs[root].append(component["bom-ref"])
        needs[component["bom-ref"]] = [part["bom-ref"] for part in component["components"]]
        needs.update({part["bom-ref"]: [] for part in component["components"]})
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": name,
                "version": version,
                "licenses": [{"expression": license_expression}],
                "purl": root,
            },
            "properties": [{"name": "banger:versions", "value": _VERSIONS}],
        },
        "components": [*carried, *(_component(package) for package in packages)],
        "dependencies": [{"ref": ref, "dependsOn": sorted(set(on))} for ref, on in needs.items()],
    }
    # A serial number has to be a UUID; taken from the content, it is the same for the same content.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    return {**document, "serialNumber": serial.urn}


def _component(package: Locked) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        # A release is several files, for one platform each: any of them is it.
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in package.hashes],
        "externalReferences": [
            {"type": "distribution", "url": f"https://pypi.org/project/{package.name}/{package.version}/"}
        ],
    }
    if package.marker:
        component["properties"] = [{"name": "banger:marker", "value": package.marker}]
    return component


def build_agent(root: Path) -> None:
    """Compile the program that the package carries for its guests. Raises ``RuntimeError`` with one line that helps."""
    for tool in ("make", "musl-gcc"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"the guest agent is built with {tool}: apt-get install -y gcc make musl-tools")
    subprocess.run(["make", "--silent", "--directory", str(root / "guest-agent")], check=True)


def agent_component(file: Path, version: str) -> dict[str, Any]:
    """The compiled program, by its own hash, and the C library in it."""
    musl: dict[str, Any] = {"type": "library", "bom-ref": "musl", "name": "musl", "licenses": [{"expression": "MIT"}]}
    if musl_version := _musl_version():
        musl |= {"version": musl_version, "purl": f"pkg:generic/musl@{musl_version}"}
    return {
        "type": "application",
        "bom-ref": file.name,
        "name": file.name,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(file.read_bytes()).hexdigest()}],
        "components": [musl],
    }


def _musl_version() -> str:
    """As the library's own loader says it; empty if it is not where musl installs it."""
    loader = Path(f"/lib/ld-musl-{platform.machine()}.so.1")
    if not loader.exists():
        return ""
    said = subprocess.run([loader], capture_output=True, text=True, check=False).stderr
    found = re.search(r"^Version (\S+)$", said, re.MULTILINE)
    return found[1] if found else ""


class SbomHook(BuildHookInterface[Any]):
    """Puts the document into every wheel that is built, and the guest agent, which is compiled for that."""

    PLUGIN_NAME = "custom"
    _made: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write it where nothing is left behind, and have it taken in."""
        core, carried = self.metadata.core, []
        if version == "standard":  # an editable installation uses what scripts/setup.sh has built
            build_agent(Path(self.root))
            carried.append(agent_component(Path(self.root) / AGENT, core.version))
            # The program is for guests of one architecture, which is this one's; it needs no library of the host.
            build_data["tag"] = f"py3-none-manylinux_2_17_{platform.machine()}"
        locked = read_lock((Path(self.root) / LOCK).read_text(encoding="utf-8"))
        packages = [package for package in locked if package.is_of_linux]
        document = bill_of_materials(core.raw_name, core.version, core.license_expression, packages, carried)
        self._made = tempfile.TemporaryDirectory()
        file = Path(self._made.name) / FILE_NAME
        file.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        build_data["sbom_files"].append(str(file))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Take the file away again."""
        del version, build_data, artifact_path
        if self._made is not None:
            self._made.cleanup()
