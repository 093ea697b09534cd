#!/usr/bin/env bash
# All tests: real wheels, images and registries first (tests/real, which installs the tools it compares with), the table of
# reported incidents, then `cargo test`, whose summary comes last. Root is needed where a tool is missing; a Rust toolchain
# and a C compiler always.
#
#   tests/run.sh [--cache DIR]     DIR keeps downloads between runs (default: a cudalint-tests folder in the user cache)
set -euo pipefail
cd "$(dirname "$0")/.."

# The program of releases: what is tested here is what people get.
release=$(packaging/build.sh --bins)
# The tests against real images leave a core to the build of those below.
cargo build --locked --quiet --lib --tests --examples &
building=$!
trap 'kill "$building" 2>/dev/null || true' EXIT
tests/real/run.sh --binary "$release/cudalint" "$@"
wait "$building"
# With the build of the tests: examples need what tests need, and would be a second release build.
cargo run --locked --quiet --example incidents -- fixtures/incidents/public.toml
cargo test --locked --lib --tests
