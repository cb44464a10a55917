"""Files that are read as a whole: somebody's mistake, or malice, may have put something else in their place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from banger.catalog.catalog import Catalog
from banger.client import autostart
from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.daemon import main as daemon
from banger.daemon.installation import installation_id
from banger.guest.sshkeys import ensure_key
from banger.layout import Layout
from banger.oci.credentials import CredentialStore
from banger.posix.files import open_regular, read_regular
from banger.vmm.findings_cache import FindingsCache

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout.from_environment({"BANGER_HOME": str(tmp_path / "home")})
    made.make_directories()
    made.catalog_dir.mkdir(parents=True)
    return made


def test_regular_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a" * 100_000)
    assert read_regular(tmp_path / "file") == b"a" * 100_000


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None], flags: int
) -> None:
    make(tmp_path / "thing")
    with pytest.raises(OSError, match=r"not a regular file|Is a directory|No such device"):
        os.close(open_regular(tmp_path / "thing", flags))


@pytest.mark.parametrize(
    ("place", "use"),
    [
        (lambda one: one.installation_id_file, installation_id),
        (lambda one: one.config_file, lambda one: Config.load(one.config_file, {})),
        (lambda one: one.catalog_dir / "team.toml", Catalog.load),
        (lambda one: one.lock_file, lambda one: daemon._lock(one).__enter__()),
        (lambda one: one.daemon_log, autostart._spawn),
        (lambda one: one.data / "auth.json", lambda one: CredentialStore(one.data / "auth.json").find("x.example")),
    ],
    ids=["installation-id", "config", "catalog", "lock", "log", "credentials"],
)
def test_pipe_in_the_place_of_a_file_is_an_error_that_names_it(
    layout: Layout, place: Callable[[Layout], Path], use: Callable[[Layout], object]
) -> None:
    path = place(layout)
    os.mkfifo(path, 0o600)
    with pytest.raises(BangerError) as refused:
        use(layout)
    assert refused.value.kind is ErrorKind.DENIED
    assert str(path) in refused.value.message


def test_pipe_in_the_place_of_the_key_to_all_guests_is_refused(layout: Layout) -> None:
    os.mkfifo(layout.ssh_key, 0o600)
    with pytest.raises(BangerError, match="is not an unencrypted ed25519 private key"):
        ensure_key(layout.ssh_key)


def test_pipe_in_the_place_of_what_was_found_out_counts_as_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "proofs.json")
    assert FindingsCache(tmp_path / "proofs.json", ["here"], "proofs").load() == {}
