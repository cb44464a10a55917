"""What banger knows of Firecracker's releases is sound, and what nobody vouches for is not taken."""

from __future__ import annotations

import re
from datetime import date

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.releases.trust import checked_sums, require_trust
from banger.vmm.firecracker.releases import download_url, known, order_of, parse_version, support_of, vouched_for

SUM_A, SUM_B, SUM_C = ("a" * 64, "b" * 64, "c" * 64)


def test_every_pinned_sum_is_one_and_says_where_it_was_found() -> None:
    releases = known("x86_64")
    for release in releases.values():
        assert parse_version(release.version), release
        assert re.fullmatch(r"[0-9a-f]{64}", release.archive), release.version
        for each in (release.firecracker, release.jailer):
            assert re.fullmatch(r"(|[0-9a-f]{64})", each), release.version
        assert len(release.sources) >= 2, release.version
        assert "not in banger's table" not in support_of(release.version, date(2026, 11, 28)).words
    sums = [each for one in releases.values() for each in (one.archive, one.firecracker, one.jailer) if each]
    assert len(sums) == len(set(sums)) == len(vouched_for("x86_64"))


def test_newest_release_comes_first_and_nothing_is_known_of_another_architecture() -> None:
    versions = list(known("x86_64"))
    assert versions == sorted(versions, key=order_of, reverse=True)
    assert support_of(versions[0], date(2026, 11, 28)).is_over is False
    assert known("riscv64") == {}
    assert download_url("1.16.1", "x86_64").endswith("/v1.16.1/firecracker-v1.16.1-x86_64.tgz")


@pytest.mark.parametrize(
    ("version", "today", "words", "is_over"),
    [
        ("1.12.1", date(2026, 11, 28), "1.12 has not been supported since 2025-12-17", True),
        ("1.12.1", date(2025, 6, 1), "supported at least until 2025-11-07", False),
        ("1.16.1", date(2026, 11, 28), "supported at least until 2026-12-03", False),
        ("1.16.1", date(2026, 12, 4), "a newer banger knows", False),
        ("1.16.1", date(2027, 6, 10), "older than a year", True),
        ("1.99.0", date(2026, 11, 28), "newer than this banger knows", False),
        ("1.3.0", date(2026, 11, 28), "not in banger's table", False),
        ("1.17.0-dev", date(2026, 11, 28), "supported at least until 2027-03-10", False),
    ],
)
def test_support_of_a_version_is_told_by_its_line(version: str, today: date, words: str, is_over: bool) -> None:
    found = support_of(version, today)
    assert words in found.words
    assert found.is_over is is_over


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "v1.2.3",
        "1.2.3.4",
        "1.2.x",
        "../1.2.3",
        "1.2.3/..",
        "1.2.3-",
        "1.2.3 ",
        "99999.1.1",
        "\u0661.2.3",
    ],
)
def test_text_that_is_no_version_is_none(text: str) -> None:
    assert parse_version(text) is None


def test_versions_sort_by_number_and_a_release_comes_after_what_leads_to_it() -> None:
    assert sorted(["1.10.0", "1.9.9", "1.10.0-rc1", "1.2.10"], key=order_of) == [
        "1.2.10",
        "1.9.9",
        "1.10.0-rc1",
        "1.10.0",
    ]


PROGRAMS = {"firecracker": SUM_A, "jailer": SUM_B}


@pytest.mark.parametrize(
    ("archive", "given", "known_sums"),
    [
        (SUM_C, (), (SUM_C,)),
        ("", (), (SUM_A, SUM_B)),
        (SUM_C, (), (SUM_A, SUM_B)),
        (SUM_C, (SUM_C,), ()),
        ("", (SUM_A, SUM_B), ()),
    ],
)
def test_archive_or_both_programs_are_enough_to_be_trusted(
    archive: str, given: tuple[str, ...], known_sums: tuple[str, ...]
) -> None:
    require_trust("x", archive, PROGRAMS, given, known_sums, "")


@pytest.mark.parametrize(
    ("archive", "given", "known_sums", "kind"),
    [
        (SUM_C, (), (), ErrorKind.DENIED),
        ("", (), (SUM_A,), ErrorKind.DENIED),  # one program says nothing of the other
        ("", (), ("",), ErrorKind.DENIED),
        (SUM_C, (SUM_A,), (SUM_C,), ErrorKind.INVALID),  # what the user says counts for more than what banger knows
        ("", (SUM_A,), (SUM_A, SUM_B), ErrorKind.INVALID),
    ],
)
def test_what_nobody_vouches_for_is_refused(
    archive: str, given: tuple[str, ...], known_sums: tuple[str, ...], kind: ErrorKind
) -> None:
    with pytest.raises(BangerError) as failed:
        require_trust("x", archive, PROGRAMS, given, known_sums, "say so")
    assert failed.value.kind is kind


def test_nothing_at_all_is_not_trusted() -> None:
    with pytest.raises(BangerError):
        require_trust("x", "", {}, (), (SUM_A,), "")


def test_sum_that_is_none_is_refused_and_large_letters_are_taken() -> None:
    assert checked_sums(["A" * 64]) == ("a" * 64,)
    with pytest.raises(BangerError, match="is not a SHA-256"):
        checked_sums(["sha256:" + "a" * 64])
