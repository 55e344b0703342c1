#!/bin/sh
# Prepare this machine for the targets of the Makefile: missing Debian packages and the locked
# virtual environment. Installs only what is missing, and returns at once when nothing is.
#
#   tools/setup.sh check    what `make check` needs
#   tools/setup.sh lab      and what the virtual-time lab needs (the default)
set -eu
cd "$(dirname "$0")/.."

check_packages="clang:clang libbpf-dev:@libbpf openssl:openssl python3-venv:@venv
  systemd:systemd-analyze tshark:tshark"
lab_packages="qemu-system-x86:qemu-system-x86_64 mmdebstrap:mmdebstrap zstd:zstd
  debian-archive-keyring:@keyring"
# without root the guest's root file system is built in a user namespace
[ "$(id -u)" = 0 ] || lab_packages="$lab_packages uidmap:newuidmap"

case "${1:-lab}" in
  check) wanted=$check_packages ;;
  lab) wanted="$check_packages $lab_packages" ;;
  *) echo "usage: tools/setup.sh [check|lab]" >&2; exit 2 ;;
esac

say() { printf 'setup: %s\n' "$*"; }

find_python() {
  for candidate in python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
}

python=$(find_python)
if [ -z "$python" ]; then
  say "no Python 3.11 or newer found. Type: apt-get install python3" >&2
  exit 1
fi

has() { # PROGRAM, or @venv, @keyring, @libbpf
  case "$1" in
    @libbpf) [ -e /usr/include/bpf/bpf_helpers.h ] ;;
    @venv) "$python" -c 'import ensurepip, venv' 2>/dev/null ;;
    @keyring) ls /usr/share/keyrings/debian-archive-keyring.* >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] ;;
  esac
}

missing_packages() {
  for pair in $wanted; do
    has "${pair#*:}" || printf '%s ' "${pair%%:*}"
  done
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

can_be_root() {
  [ "$(id -u)" = 0 ] && return
  command -v sudo >/dev/null 2>&1 || return 1
  sudo -n true 2>/dev/null || [ -t 0 ] # it may ask for a password only where somebody can type it
}

missing=$(missing_packages)
if [ -n "$missing" ]; then
  by_hand="apt-get install --no-install-recommends $missing"
  if ! command -v apt-get >/dev/null 2>&1; then
    say "missing: $missing- this is not a Debian system; install their equivalents" >&2
    exit 1
  elif ! can_be_root; then
    say "missing: $missing- and no right to install it. Type as root: $by_hand" >&2
    exit 1
  fi
  say "installing Debian packages: $missing"
  # tshark would ask whether users may capture; the answer "no" is what we need
  if ! { as_root apt-get -q update &&
         as_root env DEBIAN_FRONTEND=noninteractive \
           apt-get -q install -y --no-install-recommends $missing; }; then
    say "apt-get failed. Type as root, and read what it says: $by_hand" >&2
    exit 1
  fi
  missing=$(missing_packages)
  if [ -n "$missing" ]; then
    say "still missing after apt-get: $missing" >&2
    exit 1
  fi
fi

venv=.venv
pip="$venv/bin/python -m pip --disable-pip-version-check"
# an environment that was moved, or belongs to another Python, is made anew
place="$PWD $("$python" -V)"
venv_works() { [ "$(cat $venv/.place 2>/dev/null)" = "$place" ] && $venv/bin/python -c ''; }
is_done() { venv_works && [ "$(cat "$venv/.done-$1" 2>/dev/null)" = "$2" ]; }
done_with() { printf '%s\n' "$2" > "$venv/.done-$1"; }

if [ -L $venv ]; then # making it anew would empty what it leads to
  say "$venv is a link: remove it, so that this checkout gets an environment of its own" >&2
  exit 1
fi
locks=$(cat requirements/build.lock requirements/dev.lock | sha256sum)
if ! is_done locks "$locks"; then
  if ! venv_works; then
    say "making the virtual environment $venv ($("$python" -V))"
    "$python" -m venv --clear $venv
    printf '%s\n' "$place" > $venv/.place
  fi
  say "installing the locked Python packages (about a minute the first time)"
  $pip install --quiet --require-hashes -r requirements/build.lock
  $pip install --progress-bar on --require-hashes -r requirements/dev.lock
  done_with locks "$locks"
fi

project=$(sha256sum < pyproject.toml)
if ! is_done project "$project"; then
  say "installing the project itself, in place"
  PYTHONWARNINGS=ignore $pip install --quiet --no-deps --no-build-isolation --editable .
  done_with project "$project"
  say "ready"
fi
