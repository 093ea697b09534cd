#!/usr/bin/env bash
# This checkout -> one static cudalint for Linux, the program of releases and what tests/run.sh tests. Prints the directory it is in.
#
#   packaging/build.sh [cargo arguments]
#
# Linked with the machine's C library (glibc's static archive, part of Debian's libc6-dev), names resolved by hickory: glibc's
# own resolver would load libraries at run time.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/static.env

cargo build --release --locked --features static --target "$CARGO_BUILD_TARGET" "$@" >&2
echo "${CARGO_TARGET_DIR:-target}/$CARGO_BUILD_TARGET/release"
