"""What is installed, what is built and what runs in CI: pinned, complete, and named in the wheel."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import sbom
from tests.support.command import PROJECT

LOCKS = PROJECT / "requirements"
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.y*ml"))
#: What each file is for: groups of pyproject.toml, and whether what banger needs to run is in it.
CONTENTS = {"runtime": ((), True), "build": (("build",), False), "dev": (("dev",), True), "lock": (("lock",), False)}
MACHINES = [
    {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": "x86_64"}
    for python in ("3.11", "3.12", "3.13", "3.14")
]


def locked(name: str) -> dict[str, sbom.Locked]:
    packages = sbom.read_lock((LOCKS / f"{name}.txt").read_text())
    assert len({package.name for package in packages}) == len(packages), f"{name}.txt names a package twice"
    return {package.name: package for package in packages}


def asked_for(name: str) -> Iterator[Requirement]:
    groups, runs = CONTENTS[name]
    for group in groups:
        yield from _members(group)
    if runs:
        yield from map(Requirement, PYPROJECT["project"]["dependencies"])


def _members(group: str) -> Iterator[Requirement]:
    for member in PYPROJECT["dependency-groups"][group]:
        if isinstance(member, dict):
            yield from _members(member["include-group"])
        else:
            yield Requirement(member)


def applies(marker: Marker | None, machine: dict[str, str], extras: set[str] = frozenset()) -> bool:  # type: ignore[assignment]
    return marker is None or any(marker.evaluate({**machine, "extra": extra}) for extra in extras or {""})


@pytest.mark.parametrize("name", CONTENTS)
def test_lock_file_satisfies_what_the_project_asks_for_on_every_machine(name: str) -> None:
    found = locked(name)
    for wanted in asked_for(name):
        package = found[canonicalize_name(wanted.name)]
        assert package.version in wanted.specifier, f"{name}.txt: {package.name}=={package.version}; run: make lock"
        marker = Marker(package.marker) if package.marker else None
        for machine in MACHINES:
            assert applies(marker, machine) or not applies(wanted.marker, machine), (package.name, machine)


@pytest.mark.parametrize("name", CONTENTS)
def test_lock_file_has_hashes_for_everything_and_names_no_index(name: str) -> None:
    text = (LOCKS / f"{name}.txt").read_text()
    assert all(package.hashes for package in locked(name).values())
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--(?!hash=))", text, re.MULTILINE)


def test_same_package_has_the_same_version_in_every_lock_file() -> None:
    dev = locked("dev")
    for name in ("runtime", "build"):
        for package in locked(name).values():
            assert dev[package.name].version == package.version, f"{name}.txt: {package.name}; run: make lock"


@pytest.mark.parametrize("name", ["runtime", "dev"])
def test_lock_file_holds_what_its_packages_need_themselves(name: str) -> None:
    """Here, that is; what is installed says what it needs."""
    found = locked(name)
    todo = [(wanted, {""}) for wanted in asked_for(name)]
    seen = set()
    while todo:
        wanted, extras = todo.pop()
        if not applies(wanted.marker, {}, extras) or (key := (wanted.name, frozenset(wanted.extras))) in seen:
            continue
        seen.add(key)
        package = found[canonicalize_name(wanted.name)]
        assert package.version in wanted.specifier, f"{package.name}=={package.version} is not {wanted}"
        try:
            needs = metadata.requires(wanted.name) or []
        except metadata.PackageNotFoundError:
            continue  # set up by ranges: BANGER_UNLOCKED
        todo += [(Requirement(line), set(wanted.extras)) for line in needs]
    assert len(seen) > 20


def test_environment_has_nothing_that_makes_the_imports_of_the_daemon_slow() -> None:
    """Every jsonschema that finds this makes forty parsers when it is imported, and oras, which a pull needs, imports it."""
    assert "rfc3987-syntax" not in locked("dev")


def test_interpreters_of_ci_are_those_that_the_lock_files_are_for() -> None:
    least, most = re.search(
        r"\(3, (\d+)\) <= sys.version_info < \(3, (\d+)\)", (PROJECT / "scripts/setup.sh").read_text()
    ).groups()  # type: ignore[union-attr]
    matrix = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text())["jobs"]["fast"]["strategy"]["matrix"]
    assert matrix["python"] == [f"3.{minor}" for minor in range(int(least), int(most))]
    assert [machine["python_version"] for machine in MACHINES] == matrix["python"]
    assert PYPROJECT["project"]["requires-python"] == f">=3.{least}"


@pytest.mark.parametrize(
    "line",
    ["-e .", "requests", "requests>=2", "--index-url https://pypi.example.org", "    --hash=md5:00", "    # by me"],
)
def test_line_that_pins_nothing_is_no_line_of_a_lock_file(line: str) -> None:
    with pytest.raises(ValueError, match="not a line"):
        sbom.read_lock(f"a==1 \\\n    --hash=sha256:{'0' * 64}\n{line}\n" if line.startswith("-") else f"{line}\n")


# -- the wheel -------------------------------------------------------------------------------------------


def wheel(directory: Path) -> Path:
    """The wheel as any front end has it made."""
    argv = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(argv, cwd=PROJECT, check=True, capture_output=True)
    (made,) = directory.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [wheel(tmp_path_factory.mktemp(name)) for name in ("once", "again")]


def bill(path: Path) -> tuple[str, dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        (name,) = [one for one in archive.namelist() if "/sboms/" in one]
        text = archive.read(name).decode()
    assert re.fullmatch(r"banger-[0-9.]+\.dist-info/sboms/banger\.cdx\.json", name)
    return text, json.loads(text)


def test_wheel_names_every_package_that_it_runs_with_by_version_and_hash(wheels: list[Path]) -> None:
    _, document = bill(wheels[0])
    runtime = {name: package for name, package in locked("runtime").items() if "win32" not in package.marker}
    components = {component["name"]: component for component in document["components"]}
    assert set(components) == {*runtime, "banger-agent"}
    for name, package in runtime.items():
        assert components[name]["version"] == package.version
        assert {one["content"] for one in components[name]["hashes"]} == set(package.hashes)
        assert components[name]["purl"] == f"pkg:pypi/{name}@{package.version}"


@pytest.mark.slow
def test_bill_of_materials_is_valid_by_the_schema_of_its_makers(wheels: list[Path]) -> None:
    from cyclonedx.schema import SchemaVersion  # imported here, since that takes seconds
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill(wheels[0])[0]) is None


def test_nothing_in_the_bill_of_materials_stands_alone(wheels: list[Path]) -> None:
    _, document = bill(wheels[0])
    root = document["metadata"]["component"]
    assert (root["name"], root["version"]) == ("banger", PYPROJECT["project"]["version"])
    needs = {entry["ref"]: entry["dependsOn"] for entry in document["dependencies"]}
    direct = {purl.removeprefix("pkg:pypi/").partition("@")[0] for purl in needs[root["bom-ref"]]}
    assert direct == {canonicalize_name(wanted.name) for wanted in asked_for("runtime")} | {"banger-agent"}
    reached, todo = set(), [root["bom-ref"]]
    while todo:
        ref = todo.pop()
        if ref not in reached:
            reached.add(ref)
            todo += needs[ref]
    assert reached == set(needs)


def test_wheel_carries_the_agent_that_its_bill_names_for_the_machines_that_can_run_it(wheels: list[Path]) -> None:
    _, document = bill(wheels[0])
    agent = next(component for component in document["components"] if component["name"] == "banger-agent")
    with zipfile.ZipFile(wheels[0]) as archive:
        content = archive.read("banger/guest/data/banger-agent")
    assert agent["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]
    assert [(part["name"], bool(part.get("version"))) for part in agent["components"]] == [("musl", True)]
    assert wheels[0].name.endswith(f"-py3-none-manylinux_2_17_{platform.machine()}.whl")


def test_wheel_that_is_built_twice_is_the_same(wheels: list[Path]) -> None:
    once, again = (path.read_bytes() for path in wheels)
    assert once == again


# -- CI --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_gives_the_code_of_strangers_no_more_than_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    triggers = workflow[True]  # YAML 1.1 reads `on` as a truth
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(triggers)
    assert "secrets" not in re.sub(r"#.*", "", text)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert not {"container", "services", "environment"} & set(job)
        assert job["runs-on"].startswith("ubuntu-")
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "what a stranger wrote must not become a part of a script"
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_actions_are_pinned_by_commit_and_say_which_version_that_is() -> None:
    used = [line.strip() for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.fullmatch(r"- uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
