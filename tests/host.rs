//! `cudalint host` on a machine whose NVML is `fixtures/nvml/nvml.c`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;

#[test]
fn nvml_tells_the_driver_and_the_gpus() {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/nvml/nvml.c");
    for name in ["libnvidia-ml.so", "libnvidia-ml.so.1"] {
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(dir.path().join(name))
            .arg(&source)
            .status();
        assert!(made.expect("a C compiler").success());
    }
    let host = Command::new(env!("CARGO_BIN_EXE_cudalint"))
        .arg("host")
        .env("LD_LIBRARY_PATH", dir.path())
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    let text = String::from_utf8(host.stdout).unwrap();
    assert!(
        text.contains("driver = \"570.124.06\"\ngpus = [\"NVIDIA H100 80GB HBM3\"]\nbrand = \"NVIDIA\"\n"),
        "{text}"
    );
    assert!(host.status.success());
    // It is a targets file as it stands.
    let file = dir.path().join("hosts.toml");
    std::fs::write(&file, &text).unwrap();
    let facts = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/facts/torch-2.5.1.json");
    let check = Command::new(env!("CARGO_BIN_EXE_cudalint"))
        .args(["--facts", facts.to_str().unwrap(), "--targets", file.to_str().unwrap(), "--fail-on", "never"])
        .output()
        .unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(said.contains("H100") && check.status.success(), "{said}");
}
