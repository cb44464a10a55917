"""Archives unpacked into a directory: what is in them comes out, and none reaches beyond its directory."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.oci.artifact_tree import MODULE_LIMITS, unpack_tree
from banger.rootfs.limits import Limits

TOKEN = CancelToken()
Tree = dict[str, Any]


def packed(directory: Path) -> bytes:
    done = subprocess.run(["tar", "-C", directory, "--format=pax", "-c", "."], capture_output=True, check=True)
    return done.stdout


def unpack(data: bytes, target: Path, **arguments: Any) -> Tree:
    target.mkdir(exist_ok=True)
    unpack_tree(io.BytesIO(data), target, TOKEN, **arguments)
    return tree_at(target)


def tree_at(directory: Path) -> Tree:
    """Path to content, link target or ``None`` for a directory, and for files whether they are executable."""
    found: Tree = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = None
        else:
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "kernel/drivers").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "kernel/drivers/a.ko").write_bytes(b"a" * 3000)
    (root / "kernel/drivers/link.ko").symlink_to("../drivers/a.ko")
    (root / "run").write_bytes(b"#!")
    (root / "run").chmod(0o755)
    (root / ("long" * 50)).write_bytes(b"")
    (root / "modules.dep").write_text("x:\n")
    return root


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, lambda data: zstandard.ZstdCompressor().compress(data)],
    ids=["plain", "gzip", "zstd"],
)
def test_tree_comes_out_as_it_went_in(tree: Path, tmp_path: Path, compress: Any) -> None:
    assert unpack(compress(packed(tree)), tmp_path / "out") == tree_at(tree)


def test_hard_links_inside_the_archive_are_kept(tmp_path: Path) -> None:
    data = tar_of(("a/f", {}), ("b/g", {"type": tarfile.LNKTYPE, "linkname": "./a/f"}))
    unpack(data, tmp_path / "out")
    assert (tmp_path / "out/a/f").samefile(tmp_path / "out/b/g")


def test_ignored_links_are_left_out_wherever_they_lead(tmp_path: Path) -> None:
    data = tar_of(("build", {"type": tarfile.SYMTYPE, "linkname": "/usr/src/linux"}), ("f", {}))
    assert unpack(data, tmp_path / "out", ignored_links={b"build"}).keys() == {"f"}


def test_links_that_stay_inside_are_kept(tmp_path: Path) -> None:
    links = {"a/b/up": "../../x", "here": ".", "a/down": "b/c", "lib": "usr/lib", "dangling": "nothing"}
    members = [(name, {"type": tarfile.SYMTYPE, "linkname": target}) for name, target in links.items()]
    found = unpack(tar_of(*members), tmp_path / "out")
    assert {name: text for name, text in found.items() if text} == {n: f"-> {t}" for n, t in links.items()}


# -- hostile archives ----------------------------------------------------------------------------------------


def tar_of(*members: tuple[str, dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, attributes in members:
            info = tarfile.TarInfo(name)
            for key, value in attributes.items():
                setattr(info, key, value)
            if info.isreg():
                info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    return buffer.getvalue()


def link(target: str) -> dict[str, Any]:
    return {"type": tarfile.SYMTYPE, "linkname": target}


def hard(target: str) -> dict[str, Any]:
    return {"type": tarfile.LNKTYPE, "linkname": target}


DIRECTORY = {"type": tarfile.DIRTYPE}
HOSTILE: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "absolute file": (("/evil", {}),),
    "absolute directory": (("/evil", DIRECTORY),),
    "path upwards": (("../evil", {}),),
    "path upwards in the middle": (("a/../../evil", {}),),
    "path upwards that stays inside": (("a/../b", {}),),
    "only upwards": (("..", DIRECTORY),),
    "absolute link": (("l", link("/etc")),),
    "link upwards": (("l", link("../evil")),),
    "link upwards from a directory": (("a/l", link("../../evil")),),
    "link upwards in the middle": (("a/b/l", link("x/../../../../evil")),),
    "link upwards behind a link": (("a/b/c", link("../..")), ("a/b/d", link("c/../evil"))),
    "file through a link": (("d", DIRECTORY), ("l", link("d")), ("l/evil", {})),
    "directory through a link": (("d", DIRECTORY), ("l", link("d")), ("l/evil", DIRECTORY)),
    "directory over a link": (("d", DIRECTORY), ("l", link("d")), ("l", DIRECTORY)),
    "file over a link": (("f", {}), ("l", link("f")), ("l", {})),
    "file over a dangling link": (("l", link("evil")), ("l", {})),
    "file over a file": (("f", {}), ("f", {})),
    "file over a directory": (("f", DIRECTORY), ("f", {})),
    "directory over a file": (("f", {}), ("f", DIRECTORY)),
    "link over a file": (("f", {}), ("f", link("g"))),
    "file below a file": (("f", {}), ("f/g", {})),
    "hard link out": (("l", hard("../evil")),),
    "absolute hard link": (("l", hard("/etc/passwd")),),
    "hard link to nothing": (("l", hard("nothing")),),
    "hard link to itself": (("l", hard("l")),),
    "hard link to a directory": (("d", DIRECTORY), ("l", hard("d"))),
    "hard link to a link": (("s", link("f")), ("l", hard("s"))),
    "hard link through a link": (("d/f", {}), ("s", link("d")), ("l", hard("s/f"))),
    "hard link to the root": (
        (
            "l",
            hard("."),
        ),
    ),
    "hard link over a file": (("f", {}), ("g", {}), ("g", hard("f"))),
    "character device": (("d", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),),
    "block device": (("d", {"type": tarfile.BLKTYPE, "devmajor": 8}),),
    "pipe": (("p", {"type": tarfile.FIFOTYPE}),),
    "file that replaces the root": ((".", {}),),
    "link that replaces the root": (("./", link("x")),),
    "long name": (("n" * 256, {}),),
    "long path": (("/".join(["p" * 200] * 10), {}),),
    "unknown type": (("x", {"type": b"Z"}),),
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archive_is_refused_and_touches_nothing_outside(tmp_path: Path, members: Any) -> None:
    (tmp_path / "evil").write_bytes(b"before")
    outside = set(tmp_path.iterdir())
    with pytest.raises(BangerError) as caught:
        unpack(tar_of(*members), tmp_path / "out")
    assert caught.value.kind is ErrorKind.INVALID
    assert set(tmp_path.iterdir()) - outside == {tmp_path / "out"}
    assert (tmp_path / "evil").read_bytes() == b"before"


@pytest.mark.parametrize(
    ("limits", "members"),
    [
        (Limits(entries=3), [(f"f{i}", {}) for i in range(4)]),
        (Limits(entries=5), [("/".join("abcdefgh"), {})]),
        (Limits(file_bytes=3), [("long", {})]),
        (Limits(metadata_bytes=2000), [(f"{i}" * 50, {}) for i in range(1, 9)]),
    ],
    ids=["entries", "implied directories", "file", "names"],
)
def test_archive_beyond_a_limit_is_refused(tmp_path: Path, limits: Limits, members: Any) -> None:
    with pytest.raises(BangerError) as caught:
        unpack(tar_of(*members), tmp_path / "out", limits=limits)
    assert caught.value.kind is ErrorKind.INVALID


def test_decompression_bomb_is_stopped_by_a_count(tmp_path: Path) -> None:
    info = tarfile.TarInfo("zeros")
    info.size = 1 << 30
    compressor = zstandard.ZstdCompressor().compressobj()
    bomb = compressor.compress(info.tobuf()) + b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64))
    with pytest.raises(BangerError, match="more than"):
        unpack(bomb + compressor.flush(), tmp_path / "out", limits=Limits(total_bytes=1 << 20))
    assert (tmp_path / "out/zeros").stat().st_size <= 1 << 20


@pytest.mark.parametrize("data", [b"", b"x" * 2000, tar_of(("f", {}))[:700], b"\x1f\x8b\x08garbage"])
def test_damaged_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BangerError) as caught:
        unpack(data, tmp_path / "out")
    assert caught.value.kind is ErrorKind.INVALID


NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "", "l"]), min_size=1, max_size=4).map("/".join)
MEMBERS = st.tuples(
    NAMES,
    st.one_of(st.just({}), st.just(DIRECTORY), NAMES.filter(bool).map(link), NAMES.filter(bool).map(hard)),
)


@given(st.lists(MEMBERS, max_size=8))
def test_no_archive_writes_or_points_outside(tmp_path_factory: pytest.TempPathFactory, members: Any) -> None:
    top = tmp_path_factory.mktemp("hostile").resolve()
    root = top / "out"
    try:
        unpack(tar_of(*members), root, limits=MODULE_LIMITS)
    except BangerError as error:
        assert error.kind is ErrorKind.INVALID
    assert list(top.iterdir()) == [root]
    for path in root.rglob("*"):
        with suppress(RuntimeError):  # a loop of links leads nowhere
            assert path.resolve().is_relative_to(root)


def test_cancelled_unpacking_stops(tree: Path, tmp_path: Path) -> None:
    data, token = packed(tree), CancelToken()
    token.cancel()
    (tmp_path / "out").mkdir()
    with pytest.raises(BangerError) as caught:
        unpack_tree(io.BytesIO(data), tmp_path / "out", token)
    assert caught.value.kind is ErrorKind.CANCELLED
