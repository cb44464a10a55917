"""No secret gets into what is kept for a bug report."""

from __future__ import annotations

import time

import pytest

from banger.core.redaction import REDACTED, redactor, secrets_of, spec_without_secrets, without_homes
from banger.core.wire.vm_spec import VmSpec

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\nAAAA\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("console=ttyS0 token=abc123def quiet", "abc123def"),
        ("DB_PASSWORD=hunter2hunter2", "hunter2hunter2"),
        ('{"api_key": "k-1234567890"}', "k-1234567890"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI/K7MDENG"),
        ("password='with space and more'", "with space"),
        ("pulled https://user:p4ss@registry.example/v2/", "p4ss"),
        ("https://ghp_notarealtoken@github.com/org/repo", "ghp_notarealtoken"),
        ("https://user:p4s@rest@registry.example/v2/", "rest"),
        ("postgres://app:pa:ss@db/x", "pa:ss"),
        ('{"password": "quo\\"tale", "a": 1}', "tale"),
        ("Server=db;Uid=app;Pwd=hunter2;", "hunter2"),
        ('{"auths": {"ghcr.io": {"auth": "dXNlcjpwYXNz"}}}', "dXNlcjpwYXNz"),
        ("Set-Cookie: session=abcdef; HttpOnly", "abcdef"),
        ("dckr_pat_abcdefghijklmnop1234", "abcdefghijklmnop"),
        ("pypi-AgEIcHlwaS5vcmcabcdef", "AgEIcHlw"),
        ("sk_live_abcdefghijklmnop", "abcdefghijklmnop"),
        ("ASIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
        ("Authorization: Bearer abc.def.ghi", "abc.def.ghi"),
        ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("GET /blob?X-Amz-Signature=deadbeef&x=1", "deadbeef"),
        ("https://host/f?sig=AbC%2F1&se=2026", "AbC%2F1"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "ghp_0123456789"),
        ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sflKxwRJSMeKKF2QT4", "sflKxwRJ"),
        (KEY, "b3BlbnNzaC1rZXktdjEAAAAA"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow", "MIIEow"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQdGBGE\n-----END PGP PRIVATE KEY BLOCK-----", "lQdGBGE"),
    ],
)
def test_what_has_the_form_of_a_secret_is_taken_out(text: str, secret: str) -> None:
    redacted = redactor(())(f"before {text} ")
    assert secret not in redacted
    assert REDACTED in redacted
    assert redacted.startswith("before ")


@pytest.mark.parametrize(
    "text",
    [
        "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        "[    1.0] tsc: Refined TSC clocksource calibration: 2599.999 MHz",
        "-append console=ttyS0 reboot=t panic=-1 tsc_early_khz=2600000",
        "file=/var/lib/banger/vms/0123456789ab/disk.ext4,discard=unmap",
        "PWD=/root OLDPWD=/ pwd",
        "fetched https://host/path?to=me@example.org from 10.0.2.2",
        "Loaded X.509 cert 'Debian Secure Boot CA: 6ccece7e4c6c0d1f6149f3dd27dfcc5cbb419ea1'",
    ],
)
def test_what_a_bug_report_needs_stays(text: str) -> None:
    assert redactor(())(text) == text


def test_values_of_the_environment_are_taken_out_wherever_they_stand() -> None:
    spec = VmSpec("debian", env=("GREETING=open sesame", "MODE=dev", "PEM=one-long-line\nanother-line"))
    redact = redactor(secrets_of(spec, None))
    assert "sesame" not in redact("the app says: open sesame!")
    assert "another-line" not in redact("> another-line")
    assert redact("dev") == "dev"  # too short to be one, and a part of many words
    assert spec_without_secrets(spec, redact).env == (f"GREETING={REDACTED}", f"MODE={REDACTED}", f"PEM={REDACTED}")


def test_every_field_of_a_spec_is_looked_at() -> None:
    spec = VmSpec(
        "https://me:hunter2@registry.example/app",
        labels={"note": "token=abc123", "db-password": "geheim"},
        command=("serve", "--password", "hunter2", "--api-key=k-123", "--port", "80"),
    )
    redacted = spec_without_secrets(spec, redactor(()))
    assert "hunter2" not in str(redacted)
    assert "abc123" not in str(redacted)
    assert redacted.labels["db-password"] == REDACTED
    assert redacted.command == ("serve", "--password", REDACTED, f"--api-key={REDACTED}", "--port", "80")


def test_homes_do_not_tell_whose_they_are() -> None:
    assert without_homes("/home/alice/.local/share/banger/x /root/.ssh") == "~/.local/share/banger/x ~/.ssh"
    assert without_homes("/var/lib/banger/rootfs /chroot/x") == "/var/lib/banger/rootfs /chroot/x"


@pytest.mark.parametrize(
    "filler",
    [
        "-----BEGIN RSA PRIVATE KEY-----",
        "password",
        "a",
        "eyJaaaaaaaaaa.",
        "-eyJ",
        "token=",
        "://",
        "cookie=",
        "pwd=",
        'password="\\"',
        '"auth":"',
        "authorization: ",
        " ",
    ],
)
def test_text_that_nearly_is_a_secret_all_over_takes_no_time(filler: str) -> None:
    begun = time.process_time()
    redactor(())(filler * (65536 // len(filler)))
    assert time.process_time() - begun < 0.5
