#!/usr/bin/env bash
# Make this checkout ready to run: system packages (apt, when root) and a virtual environment in .venv.
#
#   scripts/setup.sh          what banger needs to run
#   scripts/setup.sh --test   what its tests, linters and benchmarks need as well
#
# Python packages are those of requirements/, at the versions and with the hashes that stand there. Where these files do
# not fit the interpreter or the machine, that is said, and the ranges of pyproject.toml count. BANGER_UNLOCKED=1 asks
# for that. A hash that does not match is never got around.
#
# Safe to repeat: a second run finds everything in place and takes a fraction of a second.
set -euo pipefail
cd "$(dirname "$0")/.."

# Without these no VM starts. The interpreter's own package is handled in find_python.
ESSENTIAL=(qemu-system-x86 busybox-static dropbear-bin openssh-sftp-server openssh-client e2fsprogs kmod xz-utils gcc make musl-tools)
# Without these some commands are missing: images bootstrapped from the distribution's own packages, the networks user and tap.
RUNTIME=("${ESSENTIAL[@]}" mmdebstrap ca-certificates nftables iproute2 passt)
TEST=("${RUNTIME[@]}" docker-registry skopeo umoci apache2-utils attr btrfs-progs dmsetup iptables libc6-dev libcap2-bin lz4 musl systemd zstd)

LEVEL=runtime
PACKAGES=("${RUNTIME[@]}")
LOCKS=(--requirement requirements/runtime.txt --requirement requirements/build.txt)
if [[ "${1:-}" == --test ]]; then
  LEVEL=test
  PACKAGES=("${TEST[@]}")
  LOCKS=(--requirement requirements/dev.txt)
elif [[ $# -gt 0 ]]; then
  echo "usage: scripts/setup.sh [--test]" >&2
  exit 2
fi

STAMP=.venv/.setup-stamp
WANTED="$LEVEL $(cat pyproject.toml scripts/setup.sh requirements/*.txt | sha256sum | cut -d' ' -f1)${BANGER_UNLOCKED:+ unlocked}"
APT_UPDATED=

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  printf 'setup: error: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf 'setup:   hint: %s\n' "$line" >&2; done
  exit 1
}

# Print those of the given packages that are not installed.
missing_packages() {
  local installed
  installed=" $(dpkg-query -W -f='${db:Status-Status}=${Package} ' "$@" 2>/dev/null || true) "
  for package in "$@"; do
    [[ "$installed" == *" installed=$package "* ]] || printf '%s\n' "$package"
  done
}

apt_install() {
  local log
  log=$(mktemp)
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  if [[ -z $APT_UPDATED ]]; then
    apt-get update -qq </dev/null >"$log" 2>&1 || say "apt-get update complained; going on with the lists at hand"
    APT_UPDATED=1
  fi
  if ! apt-get install -y -qq --no-install-recommends "$@" </dev/null >>"$log" 2>&1; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

install_packages() {
  local missing essential
  if ! command -v dpkg-query >/dev/null; then
    check_commands
    return
  fi
  mapfile -t missing < <(missing_packages "${PACKAGES[@]}")
  [[ ${#missing[@]} -gt 0 ]] || return 0
  if [[ $(id -u) -eq 0 ]]; then
    apt_install "${missing[@]}" && return
    # One package that this release does not have must not keep the others away.
    for package in "${missing[@]}"; do apt_install "$package" || say "could not install $package"; done
  else
    say "missing system packages: ${missing[*]}"
    say "  hint: sudo apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  mapfile -t essential < <(missing_packages "${ESSENTIAL[@]}")
  [[ ${#essential[@]} -eq 0 ]] ||
    die "banger cannot start VMs without: ${essential[*]}" \
      "apt-get update && apt-get install -y --no-install-recommends ${essential[*]}"
}

# Not a Debian family machine: say what is missing by the names of the programs.
check_commands() {
  local absent=()
  for command in qemu-system-x86_64 busybox dropbear ssh mke2fs make musl-gcc; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || absent+=("$command")
  done
  [[ ${#absent[@]} -eq 0 ]] ||
    die "this is no Debian or Ubuntu machine, and these programs are missing: ${absent[*]}" \
      "install QEMU, a static busybox, dropbear, OpenSSH, e2fsprogs, make and musl-gcc with your package manager, then run this again"
}

# Print the first interpreter that is new enough and can make virtual environments.
usable_python() {
  for candidate in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
    "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
    command -v "$candidate"
    return
  done
  return 1
}

find_python() {
  PYTHON=$(usable_python) && return
  if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
    apt_install python3 python3-venv && PYTHON=$(usable_python) && return
  fi
  die "no Python 3.11 or newer that can make virtual environments" \
    "apt-get install -y --no-install-recommends python3 python3-venv"
}

# Print why the lock files do not fit the interpreter of .venv; nothing if they do.
why_not_locked() {
  [[ -z ${BANGER_UNLOCKED:-} ]] || { echo "BANGER_UNLOCKED is set"; return; }
  .venv/bin/python - <<'END'
import os, platform, sys
version = "{}.{}".format(*sys.version_info)
libc = "CS_GNU_LIBC_VERSION" in os.confstr_names and os.confstr("CS_GNU_LIBC_VERSION")
here = f"{platform.python_implementation()} {version} on {sys.platform} {platform.machine()}" + ("" if libc else " without glibc")
fits = sys.implementation.name == "cpython" and (3, 11) <= sys.version_info < (3, 15) and sys.platform == "linux"
if not (fits and libc and platform.machine() == "x86_64"):
    print(f"it is for CPython 3.11 to 3.14 on x86-64 Linux with glibc, this is {here}")
END
}

# Every package by hash and ready-made, then banger itself by what is installed: nothing is fetched or built unasked.
install_locked() {
  .venv/bin/python -m pip install --quiet --require-hashes --only-binary :all: "${LOCKS[@]}" </dev/null ||
    die "the locked Python packages could not be installed" "see pip's own message above" \
      "for a mirror that lacks one of these versions: BANGER_UNLOCKED=1 make setup-test"
  .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable . </dev/null ||
    die "banger could not be installed into .venv" "see pip's own message above"
}

# The newest of everything that pyproject.toml admits.
install_unlocked() {
  local wanted=(--editable .)
  [[ $LEVEL == test ]] && wanted+=(--group dev)
  # Dependency groups need pip 25.1.
  .venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1' </dev/null ||
    die "pip could not be upgraded" "see pip's own message above; a proxy or mirror goes into pip's configuration"
  .venv/bin/python -m pip install --quiet "${wanted[@]}" </dev/null ||
    die "the Python packages could not be installed" "see pip's own message above"
}

make_environment() {
  [[ "$(cat "$STAMP" 2>/dev/null)" == "$WANTED" ]] && return
  # What the tests need includes what running needs.
  [[ $LEVEL == runtime && "$(cat "$STAMP" 2>/dev/null)" == "test ${WANTED#* }" ]] && return
  find_python
  if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    say "making .venv with $PYTHON"
    rm -rf .venv
    "$PYTHON" -m venv .venv
  fi
  local why_not
  why_not=$(why_not_locked)
  if [[ -z $why_not ]]; then
    say "installing banger into .venv ($LEVEL)"
    install_locked
  else
    say "installing banger into .venv ($LEVEL), by the ranges of pyproject.toml"
    say "  requirements/ is not used: $why_not"
    install_unlocked
  fi
  # Start-up time is part of the product, also where the environment forbids writing bytecode on import.
  .venv/bin/python -m compileall -q banger
  printf '%s\n' "$WANTED" >"$STAMP"
}

# The program that runs in guests; built anew when its sources have changed.
build_agent() {
  make --silent --directory guest-agent || die "the guest agent could not be built" "see the compiler's own message above"
}

install_packages
build_agent
make_environment
if [[ $LEVEL == test ]]; then .venv/bin/python scripts/fetch_firecracker.py; fi
