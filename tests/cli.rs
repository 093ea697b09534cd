//! Arguments, exit statuses and documents of the command, as a pipeline meets them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn cudalint(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cudalint"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("CUDALINT_NO_CACHE", "true");
    command.output().unwrap()
}

fn status(arguments: &[&str]) -> i32 {
    let output = cudalint(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    output.status.code().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = cudalint(arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}"))
}

const DEMO: &str = "oci:fixtures/images/demo";

#[test]
fn the_exit_status_is_that_of_the_contract() {
    assert_eq!(status(&[DEMO, "--host-driver", "535", "--gpu", "h100"]), 0);
    assert_eq!(status(&[DEMO, "--host-driver", "535", "--gpu", "t4"]), 1);
    assert_eq!(status(&[DEMO, "--host-driver", "535", "--gpu", "t4", "--fail-on", "never"]), 0);
    assert_eq!(status(&[DEMO, "--gpu", "rtx6000"]), 2);
    // The libraries that a single file needs come from elsewhere: that they are not in it is no finding.
    assert_eq!(status(&["file:fixtures/code/libdemo_cu13.so", "--host-driver", "580", "--gpu", "b200"]), 0);
    assert_eq!(status(&["./absent", "--gpu", "h100"]), 2);
    assert_eq!(status(&[]), 2);
    assert_eq!(status(&["oci:fixtures/images/demo:no-such-tag"]), 3);
    let unknown = ["check", "--facts", "fixtures/facts/lto-only.json", "--host-driver", "550"];
    assert_eq!(status(&unknown), 0);
    assert_eq!(status(&[&unknown[..], &["--strict"]].concat()), 4);
    assert_eq!(status(&["check", "--facts", "fixtures/facts/incomplete.json"]), 3);
}

#[test]
fn wrong_usage_is_one_line_that_says_how_to_mend_it() {
    for arguments in [&["a:b:c:d"][..], &["--gpu", "h1000", DEMO], &["check", "--facts", "absent.json"]] {
        let output = cudalint(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("error: ") && output.stdout.is_empty());
    }
}

#[test]
fn an_image_that_uses_no_gpu_is_neither_a_pass_nor_a_failure() {
    let report =
        json(&["check", "--facts", "fixtures/facts/cpu-only.json", "--host-driver", "535", "-f", "json"]);
    assert_eq!(report["targets"][0]["verdict"], "no-gpu-code");
}

#[test]
fn equal_runs_give_equal_bytes_and_every_key_is_there() {
    let arguments =
        [DEMO, "--host-driver", "535", "--gpu", "h100", "-f", "json", "--no-timing", "--as-of", "2026-11-20"];
    let first = cudalint(&arguments).stdout;
    assert_eq!(first, cudalint(&arguments).stdout);
    let report: Value = serde_json::from_slice(&first).unwrap();
    for key in [
        "schema_version",
        "complete",
        "as_of",
        "tool",
        "image",
        "stack",
        "device_code",
        "requirements",
        "targets",
        "findings",
        "passed",
        "problems",
    ] {
        assert!(report.get(key).is_some(), "{key}");
    }
    assert_eq!(report["targets"][0]["name"], "535/h100");
    assert_eq!(report["targets"][0]["how"], serde_json::json!(["native", "minor-version-compatibility"]));
    assert_eq!(report["requirements"]["min_driver"], "525.60.13");
    assert_eq!(report["stack"].as_array().unwrap().len(), 1, "file and package are one row");
}

#[test]
fn judging_from_the_facts_document_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("facts.json");
    let file = file.to_str().unwrap();
    assert_eq!(status(&["scan", DEMO, "-o", file]), 0);
    let targets = [
        "--host-driver",
        "535,550",
        "--gpu",
        "h100,t4",
        "-f",
        "json",
        "--no-timing",
        "--as-of",
        "2026-11-20",
    ];
    let direct = cudalint(&[&[DEMO][..], &targets].concat()).stdout;
    let later = cudalint(&[&["check", "--facts", file][..], &targets].concat()).stdout;
    assert_eq!(String::from_utf8_lossy(&direct), String::from_utf8_lossy(&later));
}

#[test]
fn a_second_scan_reads_no_layer_again() {
    let dir = tempfile::tempdir().unwrap();
    let cached = |dir: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_cudalint"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["scan", DEMO, "--cache-dir", dir.to_str().unwrap()])
            .env_remove("CUDALINT_NO_CACHE")
            .output()
            .unwrap();
        let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
        facts["timing"]["layers_cached"].as_u64().unwrap()
    };
    assert_eq!((cached(dir.path()), cached(dir.path())), (0, 3));
}

#[test]
fn several_images_make_one_document_and_the_worst_status() {
    let arguments =
        [DEMO, "oci:fixtures/images/demo-serve", "--host-driver", "535", "--gpu", "h100", "-f", "json"];
    let output = cudalint(&arguments);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["reports"].as_array().unwrap().len(), 2);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cudalint"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["inspect", DEMO, "-f", "json", "--no-cache"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn rules_schemas_and_completions_are_printed() {
    for arguments in [
        &["rules"][..],
        &["explain", "cul101"],
        &["schema", "report"],
        &["schema", "facts"],
        &["completions", "bash"],
        &["--version"],
        &["--help"],
    ] {
        let output = cudalint(arguments);
        assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}");
    }
    assert_eq!(status(&["explain", "CUL999"]), 2);
}

/// Bytes that unpack to bytes that are a stored layer themselves must not leave their facts under that layer's digest.
#[test]
fn facts_from_a_stream_are_kept_under_the_digest_of_what_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "etc/hostname", b"x");
    let plain = layer.into_inner().unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    let packed = packed.finish().unwrap();
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        hex(&plain)
    );
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "a/layer.tar", &packed);
    append(&mut archive, "c.json", config.as_bytes());
    append(
        &mut archive,
        "manifest.json",
        br#"[{"Config":"c.json","RepoTags":["a/b:1"],"Layers":["a/layer.tar"]}]"#,
    );
    let output =
        fed(&["scan", "-", "--cache-dir", dir.path().to_str().unwrap()], &archive.into_inner().unwrap());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kept: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .flat_map(|d| std::fs::read_dir(d.unwrap().path()).unwrap())
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(kept, [format!("sha256-{}.full", hex(&packed))]);
}

#[test]
fn standard_input_is_read_for_one_purpose() {
    for arguments in [
        &["-", "-"][..],
        &["-", "--targets", "-"],
        &["-", "--username", "x", "--password-stdin"],
        &[DEMO, "--targets", "-", "--username", "x", "--password-stdin"],
    ] {
        let output = fed(arguments, b"secret\n");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains("more than once") && !stderr.contains("secret"), "{stderr}");
    }
}

#[test]
fn an_empty_argument_does_not_make_a_neighbour_its_value() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image.tar");
    std::fs::write(&image, "x").unwrap();
    assert_eq!(status(&["-o", "", image.to_str().unwrap()]), 2);
    assert_eq!(std::fs::read(&image).unwrap(), b"x");
    assert_eq!(status(&[DEMO, "-o", "json=x.out", "-o", "text=x.out"]), 2);
}

/// Arguments that grow with every line of a Dockerfile, and one that is not one.
#[test]
fn a_hostile_dockerfile_costs_little_and_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("Dockerfile");
    let mut text = "ARG a0=xxxxxxxxxx\n".to_owned();
    for i in 1..60 {
        text.push_str(&format!("ARG a{i}=$a{0}$a{0}\n", i - 1));
    }
    text.push_str("FROM $a59\nCOPY kernels /opt/demo\n");
    std::fs::write(&file, text).unwrap();
    assert_eq!(status(&[DEMO, "--dockerfile", file.to_str().unwrap()]), 0);
    std::fs::write(&file, "FROM x\nSECRET_TOKEN=abc\n").unwrap();
    let output = cudalint(&[DEMO, "--dockerfile", file.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && !stderr.contains("SECRET"), "{stderr}");
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, bytes).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    cudalint::names::Digest::of(bytes).hex().to_owned()
}

fn fed(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cudalint"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).env_clear();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end without reading.
    let _closed = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}
