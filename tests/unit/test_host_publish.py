from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.host import publish
from banger.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    layout.make_directories()
    return layout


def entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def tree(path: Path) -> Path:
    (path / "modules").mkdir(parents=True)
    (path / "vmlinuz").write_bytes(b"kernel")
    (path / "modules" / "a.ko").write_bytes(b"module")
    (path / "build").symlink_to("/nowhere")
    return path


def test_staging_dir_is_private_and_gone_afterwards(layout: Layout) -> None:
    with publish.staging_dir(layout, "image-") as path:
        assert path.parent == layout.staging
        assert path.name.startswith("image-")
        assert path.stat().st_mode & 0o777 == 0o700
        tree(path / "content")
    assert entries(layout.staging) == entries(layout.trash) == []


def test_staging_dirs_are_never_the_same(layout: Layout) -> None:
    with publish.staging_dir(layout) as one, publish.staging_dir(layout) as two:
        assert one != two


def test_staging_dir_is_gone_after_a_failure_which_passes_on(layout: Layout) -> None:
    def build() -> None:
        with publish.staging_dir(layout) as path:
            tree(path / "content")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()
    assert entries(layout.staging) == []


def test_publish_moves_the_whole_tree(layout: Layout) -> None:
    with publish.staging_dir(layout) as path:
        tree(path / "content")
        publish.publish(path, layout.kernel_dir("k1"))
    assert entries(layout.kernel_dir("k1") / "content") == ["build", "modules", "vmlinuz"]
    assert entries(layout.staging) == []


@pytest.mark.parametrize("there", ["directory", "empty directory", "file", "dangling link"])
def test_publish_over_anything_that_exists_is_refused(layout: Layout, there: str) -> None:
    final = layout.kernel_dir("k1")
    match there:
        case "directory":
            tree(final)
        case "empty directory":
            final.mkdir()
        case "file":
            final.write_bytes(b"x")
        case _:
            final.symlink_to("/nowhere")
    before = final.lstat()
    with publish.staging_dir(layout) as path:
        with pytest.raises(BangerError) as caught:
            publish.publish(path, final)
        assert path.exists()
    assert caught.value.kind is ErrorKind.ALREADY_EXISTS
    assert final.lstat() == before


def test_publish_syncs_content_before_the_rename_and_the_directory_after(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal: list[str] = []
    real_sync, real_rename = os.fsync, Path.rename

    def record_sync(descriptor: int) -> None:
        journal.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real_sync(descriptor)

    def record_rename(source: Path, target: Path) -> Path:
        journal.append("rename")
        return real_rename(source, target)

    with publish.staging_dir(layout) as path:
        tree(path / "content")
        monkeypatch.setattr(os, "fsync", record_sync)
        monkeypatch.setattr(Path, "rename", record_rename)
        publish.publish(path, layout.kernel_dir("k1"))
        monkeypatch.undo()
    at = journal.index("rename")
    assert {"vmlinuz", "a.ko", "modules", "content", path.name} <= set(journal[:at])
    assert journal[:at].index("a.ko") < journal[:at].index("modules") < journal[:at].index("content")
    assert "kernels" in journal[at:]


def test_discard_of_a_tree_leaves_nothing(layout: Layout) -> None:
    final = tree(layout.image_dir("i1"))
    publish.discard(final, layout)
    assert not final.exists()
    assert entries(layout.trash) == []


@pytest.mark.parametrize("kind", ["file", "link", "absent"])
def test_discard_of_other_things_works(layout: Layout, kind: str, tmp_path: Path) -> None:
    path, target = layout.vm_dir("v1"), tmp_path / "target"
    target.mkdir()
    if kind == "file":
        path.write_bytes(b"x")
    elif kind == "link":
        path.symlink_to(target)
    publish.discard(path, layout)
    assert not path.is_symlink()
    assert not path.exists()
    assert target.exists()


def test_discard_frees_the_name_even_if_removing_fails(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tree(layout.image_dir("i1"))
    with monkeypatch.context() as broken:
        broken.setattr(publish.shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "bad disk")))
        with pytest.raises(OSError, match="bad disk"):
            publish.discard(final, layout)
    assert not final.exists()
    assert len(publish.sweep(layout)) == 1
    assert entries(layout.trash) == []


def test_discard_across_file_systems_removes_in_place(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_device(source: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", other_device)
    run_dir = tree(layout.vm_run_dir("v1"))
    publish.discard(run_dir, layout)
    assert not run_dir.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root ignores permissions")
def test_discard_of_a_tree_without_permissions_works(layout: Layout) -> None:
    final = tree(layout.image_dir("i1"))
    (final / "modules").chmod(0)
    publish.discard(final, layout)
    assert entries(layout.trash) == []


def test_sweep_removes_leftovers_of_staging_and_trash_but_what_is_kept(layout: Layout) -> None:
    left = [tree(layout.staging / "image-1"), tree(layout.trash / "i1.abc")]
    kept = tree(layout.staging / "image-2")
    assert sorted(publish.sweep(layout, keep={kept})) == sorted(left)
    assert entries(layout.staging) == ["image-2"]
    assert entries(layout.trash) == []


def test_sweep_of_a_new_installation_finds_nothing(tmp_path: Path) -> None:
    assert publish.sweep(Layout.from_environment({"BANGER_HOME": str(tmp_path / "new")})) == []


def test_sweep_tries_everything_and_tells_all_failures(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = tree(layout.trash / "bad"), tree(layout.trash / "good")
    real = publish.shutil.rmtree

    def rmtree(path: Path, **kwargs: object) -> None:
        if path == bad:
            raise OSError(errno.EIO, "bad disk")
        real(path)

    monkeypatch.setattr(publish.shutil, "rmtree", rmtree)
    with pytest.raises(ExceptionGroup) as caught:
        publish.sweep(layout)
    assert len(caught.value.exceptions) == 1
    assert bad.exists()
    assert not good.exists()
