//! Every ```console block of README.md, docs/*.md and rules/*.md is run and compared: exit status, stdout, stderr.
//!
//! `TRYCMD=overwrite cargo test --test pages` writes what the program prints now into the pages. Read the difference
//! before committing it: the pages are what users see.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;

/// Set in the process that runs the blocks.
const INNER: &str = "CUDALINT_PAGES_INNER";

/// The blocks run in an environment without settings of the person who runs the tests: colour, cache, proxies, CI, and
/// every `CUDALINT_…` variable. A process cannot clear its own environment safely, so the test starts itself again.
#[test]
fn console_blocks_of_the_pages_hold() {
    if std::env::var_os(INNER).is_some() {
        return run();
    }
    let home = tempfile::tempdir().unwrap();
    let kept = ["PATH", "TMPDIR", "TRYCMD", "LD_LIBRARY_PATH"];
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "console_blocks_of_the_pages_hold", "--nocapture"])
        .env_clear()
        .envs(kept.iter().filter_map(|k| Some((k, std::env::var_os(k)?))))
        .envs([(INNER, "1"), ("NO_COLOR", "1"), ("CUDALINT_NO_CACHE", "true"), ("LC_ALL", "C.UTF-8")])
        .env("HOME", home.path())
        .status()
        .unwrap();
    assert!(status.success(), "a page shows other output than the program: see above");
}

fn run() {
    let cases = trycmd::TestCases::new();
    cases.register_bin("cudalint", Path::new(env!("CARGO_BIN_EXE_cudalint")));
    cases.case("rules/*.md");
    cases.case("docs/*.md");
    if Path::new("README.md").exists() {
        cases.case("README.md");
    }
}
