#!/usr/bin/env bash
# This checkout -> one static cudalint for Linux, the program of releases and what tests/run.sh tests. Prints the directory it is in.
#
#   packaging/build.sh [cargo arguments]
#
# Linked with the machine's C library (glibc's static archive, part of Debian's libc6-dev), names resolved by hickory: glibc's
# own resolver would load libraries at run time.
# Gzip is inflated by ISA-L, which is built from its sources: that takes autotools, and an assembler on x86-64.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/static.env

missing=''
for pair in autoconf:autoconf automake:automake libtoolize:libtool make:make; do
  command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
case $(uname -m) in x86_64) command -v nasm >/dev/null || missing="$missing nasm" ;; esac
if [ -n "$missing" ]; then
  [ "$(id -u)" = 0 ] || { echo "build.sh: not installed, and not root:$missing" >&2; exit 1; }
  # shellcheck disable=SC2086
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends $missing; } >/dev/null
fi

cargo build --release --locked --features static,isal --target "$CARGO_BUILD_TARGET" "$@" >&2
echo "${CARGO_TARGET_DIR:-target}/$CARGO_BUILD_TARGET/release"
