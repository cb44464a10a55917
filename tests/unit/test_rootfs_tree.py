"""How layers add up: whiteouts, opaque directories, links and replacements."""

from __future__ import annotations

import pytest

from banger.core.errors import BangerError
from banger.rootfs.nodes import Directory, File, Symlink
from tests.support.rootfs import archive, directory, file, hard_link, header, merged, symlink, xattrs

OPAQUE = b".wh..wh..opq"


def paths(*layers: bytes) -> bytes:
    """All paths but the root, sorted."""
    return b" ".join(sorted(path for path in merged(*layers) if path))


def test_whiteout_removes_a_file_of_a_lower_layer() -> None:
    assert paths(archive(file(b"a"), file(b"b")), archive(file(b".wh.a"))) == b"b"


def test_whiteout_removes_a_whole_directory() -> None:
    assert paths(archive(file(b"d/e/f"), file(b"g")), archive(file(b".wh.d"))) == b"g"


def test_whiteout_removes_through_two_layers() -> None:
    assert paths(archive(file(b"a")), archive(file(b"b")), archive(file(b".wh.a"), file(b".wh.b"))) == b""


def test_whiteout_of_something_missing_changes_nothing() -> None:
    assert paths(archive(file(b"a")), archive(file(b".wh.z"), file(b"no/dir/.wh.z"))) == b"a"


def test_whiteout_in_the_lowest_layer_hides_nothing() -> None:
    assert paths(archive(file(b"a"), file(b".wh.a"))) == b"a"


@pytest.mark.parametrize("marker_first", [True, False])
def test_whiteout_spares_its_own_layer_wherever_it_stands(*, marker_first: bool) -> None:
    entries = [file(b".wh.d"), file(b"d/new")]
    upper = archive(*entries if marker_first else entries[::-1])

    assert paths(archive(file(b"d/old")), upper) == b"d d/new"


@pytest.mark.parametrize("marker_first", [True, False])
def test_opaque_marker_spares_its_own_layer_wherever_it_stands(*, marker_first: bool) -> None:
    entries = [file(b"d/" + OPAQUE), file(b"d/e/new")]
    upper = archive(*entries if marker_first else entries[::-1])

    assert paths(archive(file(b"d/old"), file(b"d/e/old")), upper) == b"d d/e d/e/new"


def test_opaque_root_leaves_only_the_upper_layer() -> None:
    assert paths(archive(file(b"a"), file(b"b/c")), archive(file(OPAQUE), file(b"z"))) == b"z"


def test_opaque_marker_keeps_the_directory_and_its_attributes() -> None:
    tree = merged(archive(directory(b"d", mode=0o700), file(b"d/x")), archive(file(b"d/" + OPAQUE)))

    assert tree[b"d"].mode == 0o700
    assert b"d/x" not in tree


def test_opaque_marker_hides_even_what_the_layer_links_to() -> None:
    lower = archive(file(b"d/x", b"data"))
    tree = merged(lower, archive(hard_link(b"kept", b"d/x"), file(b"d/" + OPAQUE)))

    assert sorted(tree) == [b"", b"d", b"kept"]
    assert isinstance(tree[b"kept"], File)
    assert tree[b"kept"].size == 4


@pytest.mark.parametrize("marker_first", [True, False])
def test_hard_link_to_a_file_that_its_layer_hides_keeps_the_file(*, marker_first: bool) -> None:
    entries = [file(b".wh.old"), hard_link(b"new", b"old")]
    tree = merged(archive(file(b"old", b"data")), archive(*entries if marker_first else entries[::-1]))

    assert sorted(tree) == [b"", b"new"]


def test_hard_link_to_a_lower_layer_shares_its_file() -> None:
    tree = merged(archive(file(b"a", b"data")), archive(hard_link(b"b", b"a")))

    assert tree[b"a"] is tree[b"b"]


def test_hard_link_survives_when_its_first_name_is_replaced_above() -> None:
    tree = merged(archive(file(b"a", b"1"), hard_link(b"b", b"a")), archive(file(b"a", b"22")))

    assert isinstance(tree[b"a"], File)
    assert isinstance(tree[b"b"], File)
    assert (tree[b"a"].size, tree[b"b"].size) == (2, 1)


def test_hard_link_survives_when_its_first_name_is_hidden_above() -> None:
    assert paths(archive(file(b"a"), hard_link(b"b", b"a")), archive(file(b".wh.a"))) == b"b"


def test_hard_link_to_a_symlink_is_the_symlink() -> None:
    tree = merged(archive(symlink(b"l", b"nowhere"), hard_link(b"m", b"l")))

    assert isinstance(tree[b"m"], Symlink)
    assert tree[b"m"] is tree[b"l"]


def test_hard_link_to_itself_changes_nothing_if_there_is_a_file() -> None:
    assert paths(archive(file(b"a"), hard_link(b"a", b"./a"))) == b"a"


def test_directory_named_again_gets_new_attributes_and_keeps_its_content() -> None:
    lower = archive(xattrs({b"user.a": b"1"}), directory(b"d", mode=0o755), file(b"d/x"))
    tree = merged(lower, archive(directory(b"d", mode=0o1770, uid=5)))

    assert (tree[b"d"].mode, tree[b"d"].uid, dict(tree[b"d"].xattrs)) == (0o1770, 5, {})
    assert b"d/x" in tree


def test_file_over_directory_replaces_all_of_it() -> None:
    assert paths(archive(file(b"d/x/y")), archive(file(b"d"))) == b"d"


def test_directory_over_file_replaces_it() -> None:
    assert paths(archive(file(b"d")), archive(directory(b"d"), file(b"d/x"))) == b"d d/x"


def test_file_twice_in_one_layer_is_the_last_one() -> None:
    tree = merged(archive(file(b"a", b"1"), file(b"a", b"22")))

    assert isinstance(tree[b"a"], File)
    assert tree[b"a"].size == 2


def test_parent_that_becomes_a_symlink_leads_later_entries_elsewhere() -> None:
    layer = archive(file(b"d/one"), directory(b"e"), symlink(b"d", b"e"), file(b"d/two"))

    assert paths(layer) == b"d e e/two"


def test_parent_symlink_of_a_lower_layer_is_followed() -> None:
    lower = archive(directory(b"usr/bin"), symlink(b"bin", b"usr/bin"))

    assert b"usr/bin/tool" in merged(lower, archive(file(b"bin/tool")))


def test_parent_never_mentioned_is_made_for_root_with_mode_0755() -> None:
    tree = merged(archive(file(b"a/b/c")))

    assert isinstance(tree[b"a/b"], Directory)
    assert (tree[b"a/b"].mode, tree[b"a/b"].uid, tree[b"a/b"].mtime_ns) == (0o755, 0, 0)


def test_root_gets_the_attributes_of_the_last_layer_that_names_it() -> None:
    tree = merged(archive(directory(b"./", mode=0o700, uid=7)), archive(directory(b".", mode=0o711)))

    assert (tree[b""].mode, tree[b""].uid) == (0o711, 0)


def test_child_of_a_file_below_a_whiteout_is_accepted() -> None:
    """The layer replaces the file by a directory; only the marker's place in the archive is unusual."""
    assert paths(archive(file(b"d")), archive(file(b"d/x"), file(b".wh.d"))) == b"d d/x"


def test_entry_with_name_of_other_bytes_than_utf8_is_kept() -> None:
    assert b"\xff\xfe/\x80" in merged(archive(file(b"\xff\xfe/\x80")))


def test_link_missing_target_names_both_in_the_error() -> None:
    with pytest.raises(BangerError, match='"new" is a hard link to "gone", which does not exist'):
        merged(archive(hard_link(b"new", b"gone")))


def test_device_and_fifo_take_part_in_merging() -> None:
    lower = archive(header(b"null", b"3", device=(1, 3)), header(b"pipe", b"6"))

    assert paths(lower, archive(file(b".wh.null"))) == b"pipe"
