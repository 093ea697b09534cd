//! What a team decided: configuration file, rule selection, ignores, baseline. None of it changes a verdict.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Fails on the T4 with CUL201, runs on the H100.
const DEMO: &str = concat!("oci:", env!("CARGO_MANIFEST_DIR"), "/fixtures/images/demo");
const HOSTS: [&str; 6] = ["--host-driver", "535", "--gpu", "h100", "--gpu", "t4"];

/// Runs in `dir`, with these variables and none of the person who tests.
fn run(dir: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cudalint"));
    command.current_dir(dir).args(arguments).env_clear().env("HOME", dir.join("home"));
    command.env("CUDALINT_NO_CACHE", "true").envs(variables.iter().copied());
    command.output().unwrap()
}

struct Ran {
    status: i32,
    report: Value,
    stderr: String,
}

/// A directory with a `cudalint.toml`, and the demo image judged there.
fn judged(config: &str, arguments: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cudalint.toml"), config).unwrap();
    let hosts = if config.contains("gpu =") || config.contains("targets =") { &[][..] } else { &HOSTS[..] };
    let arguments = [&[DEMO, "-f", "json", "--as-of", "2026-11-20"][..], hosts, arguments].concat();
    let output = run(dir.path(), &[], &arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Ran { status: output.status.code().unwrap(), report, stderr }
}

impl Ran {
    fn findings(&self, rule: &str) -> Vec<&Value> {
        self.report["findings"].as_array().unwrap().iter().filter(|f| f["rule"] == rule).collect()
    }

    fn verdict(&self, target: &str) -> &str {
        let targets = self.report["targets"].as_array().unwrap();
        targets.iter().find(|t| t["name"] == target).unwrap()["verdict"].as_str().unwrap()
    }
}

#[test]
fn an_ignore_counts_for_the_exit_status_and_never_for_the_verdict() {
    let ran =
        judged("[[ignore]]\nrule = \"no-code-for-gpu\"\nreason = \"T4 goes\"\nexpires = 2026-12-31\n", &[]);
    assert_eq!((ran.status, ran.verdict("535/t4")), (0, "fails"));
    let finding = ran.findings("CUL201");
    assert_eq!(finding[0]["suppressed"]["reason"], "T4 goes");
    assert_eq!(finding[0]["suppressed"]["until"], "2026-12-31");
    assert_eq!(ran.stderr, "");
}

#[test]
fn an_ignore_counts_up_to_its_last_day_and_is_named_after_it() {
    let row = |day: &str| format!("[[ignore]]\nrule = \"CUL201\"\nreason = \"x\"\nexpires = {day}\n");
    assert_eq!(judged(&row("2026-11-20"), &[]).status, 0);
    let late = judged(&row("2026-11-19"), &[]);
    assert_eq!(late.status, 1);
    assert!(
        late.stderr.contains("cudalint.toml, ignore 1") && late.stderr.contains("expired on 2026-11-19"),
        "{}",
        late.stderr
    );
}

#[test]
fn scopes_of_an_ignore_must_all_fit() {
    let row = |scope: &str| format!("[[ignore]]\nrule = \"CUL201\"\nreason = \"x\"\n{scope}\n");
    for (scope, covered) in [
        ("path = \"/opt/demo/*\"", true),
        ("path = \"/opt/*\"", false),
        ("path = \"/opt/**\"", true),
        ("soname = \"libdemo_train.so\"", true),
        ("soname = \"libdemo\"", false),
        ("component = \"torch\"", false),
        ("image = \"**/images/demo\"", true),
        ("image = \"registry.example.com/*\"", false),
        ("target = \"535/t4\"", true),
        ("target = \"535/*\"", true),
        ("target = \"gpu:t4\"", true),
        ("target = \"gpu:h100\"", false),
        ("target = \"driver:535\"", true),
        ("target = \"driver:53\"", false),
        ("target = \"gpu:t4\"\npath = \"/nowhere\"", false),
    ] {
        let ran = judged(&row(scope), &[]);
        assert_eq!(ran.status, i32::from(!covered), "{scope}: {}", ran.stderr);
        // An ignore for another image or host is not unused: that one may be judged in another run.
        let unused = !covered && !scope.starts_with("image") && scope != "target = \"driver:53\"";
        assert_eq!(ran.stderr.contains("covers nothing any more"), unused, "{scope}: {}", ran.stderr);
    }
}

#[test]
fn a_finding_for_two_hosts_is_split_where_only_one_is_covered() {
    let config = "[[ignore]]\nrule = \"CUL103\"\nreason = \"x\"\ntarget = \"gpu:h100\"\n";
    let ran = judged(config, &["--fail-on", "note"]);
    let split = ran.findings("CUL103");
    assert_eq!(split.len(), 2, "{split:?}");
    for finding in split {
        let suppressed = !finding["suppressed"].is_null();
        assert_eq!(finding["targets"][0] == "535/h100", suppressed);
    }
}

#[test]
fn rules_are_selected_by_code_name_and_family() {
    for (arguments, status) in [
        (&["--ignore", "CUL201"][..], 0),
        (&["--ignore", "no-code-for-gpu,CUL1"], 0),
        (&["--ignore", "cul2"], 0),
        (&["--ignore", "CUL1"], 1),
        (&["--select", "CUL1"], 0),
        (&["--select", "CUL1,CUL2"], 1),
    ] {
        assert_eq!(judged("", arguments).status, status, "{arguments:?}");
    }
    // What is typed replaces what the file says.
    assert_eq!(judged("[rules]\nignore = [\"CUL201\"]\n", &[]).status, 0);
    assert_eq!(judged("[rules]\nignore = [\"CUL201\"]\n", &["--ignore", "CUL1"]).status, 1);
    assert_eq!(judged("[rules.level]\nCUL2 = \"note\"\n", &[]).status, 0);
    assert_eq!(judged("[rules.level]\nCUL2 = \"note\"\nCUL201 = \"error\"\n", &[]).status, 1);
    assert_eq!(judged("[rules.level]\nCUL103 = \"error\"\nCUL201 = \"note\"\n", &[]).status, 1);
    let wrong = judged("", &["--ignore", "no-code-for-gpus"]);
    assert_eq!(wrong.status, 2);
    assert!(wrong.stderr.contains("did you mean `no-code-for-gpu`?"), "{}", wrong.stderr);
}

#[test]
fn options_win_over_variables_and_these_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("cudalint.toml"),
        "host-driver = 535\ngpu = [\"t4\"]\nfail-on = \"never\"\n",
    )
    .unwrap();
    let name = |variables: &[(&str, &str)], arguments: &[&str]| {
        let output = run(dir.path(), variables, &[&[DEMO, "-f", "json"][..], arguments].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let names: Vec<&str> =
            report["targets"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        (names.join(" "), output.status.code().unwrap())
    };
    assert_eq!(name(&[], &[]), ("535/t4".to_owned(), 0));
    assert_eq!(name(&[("CUDALINT_GPU", "h100")], &[]), ("535/h100".to_owned(), 0));
    assert_eq!(name(&[("CUDALINT_GPU", "h100")], &["--gpu", "l4"]), ("535/l4".to_owned(), 0));
    assert_eq!(name(&[("CUDALINT_FAIL_ON", "error")], &[]), ("535/t4".to_owned(), 1));
    assert_eq!(name(&[("CUDALINT_FAIL_ON", "error")], &["--fail-on", "never"]), ("535/t4".to_owned(), 0));
    // Hosts that are named one way replace those that the file names in another.
    let fleet = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/fleet.toml");
    assert_eq!(name(&[], &["--targets", fleet]).0, "train dev");
    assert_eq!(name(&[("CUDALINT_TARGETS", fleet)], &["--gpu", "l4"]).0, "535/l4");
    assert_eq!(name(&[("CUDALINT_GPU", "l4")], &["--targets", fleet]).0, "train dev");
    std::fs::copy(fleet, dir.path().join("fleet.toml")).unwrap();
    std::fs::write(dir.path().join("cudalint.toml"), "targets = \"fleet.toml\"\n").unwrap();
    assert_eq!(name(&[], &["--target", "dev"]).0, "dev");
    assert_eq!(name(&[], &["--gpu", "l4"]).0, "l4");
}

#[test]
fn the_file_is_found_upwards_within_the_checkout_and_no_further() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, below) = (dir.path().join("repo"), dir.path().join("repo/a/b"));
    std::fs::create_dir_all(&below).unwrap();
    let names_targets = |at: &Path, variables: &[(&str, &str)], arguments: &[&str]| {
        let output = run(at, variables, &[&[DEMO, "-f", "json"][..], arguments].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report["targets"][0]["name"].as_str().map(str::to_owned)
    };
    std::fs::write(dir.path().join("cudalint.toml"), "gpu = \"l4\"\n").unwrap();
    assert_eq!(names_targets(&below, &[], &[]), None, "without a checkout only the directory itself counts");
    std::fs::create_dir(repository.join(".git")).unwrap();
    assert_eq!(names_targets(&below, &[], &[]), None, "the root of the checkout is the end");
    std::fs::write(repository.join(".cudalint.toml"), "gpu = \"t4\"\n").unwrap();
    assert_eq!(names_targets(&below, &[], &[]).as_deref(), Some("t4"));
    std::fs::write(repository.join("cudalint.toml"), "gpu = \"a100\"\n").unwrap();
    assert_eq!(names_targets(&below, &[], &[]).as_deref(), Some("a100"));
    assert_eq!(names_targets(&below, &[], &["--no-config"]), None);
    let other = dir.path().join("cudalint.toml").display().to_string();
    assert_eq!(names_targets(&below, &[("CUDALINT_CONFIG", &other)], &[]).as_deref(), Some("l4"));
    // Paths in the file are relative to it, wherever the program runs.
    std::fs::copy(Path::new(ROOT).join("docs/examples/fleet.toml"), repository.join("fleet.toml")).unwrap();
    std::fs::write(repository.join("cudalint.toml"), "targets = \"fleet.toml\"\n").unwrap();
    assert_eq!(names_targets(&below, &[], &[]).as_deref(), Some("train"));
    // The user's own file is the last resort.
    let home = dir.path().join("conf");
    std::fs::create_dir_all(home.join("cudalint")).unwrap();
    std::fs::write(home.join("cudalint/config.toml"), "gpu = \"b200\"\n").unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let home = home.display().to_string();
    assert_eq!(names_targets(&empty, &[("XDG_CONFIG_HOME", &home)], &[]).as_deref(), Some("b200"));
}

/// A pull request may bring the file: it must not make the log show others.
#[test]
fn a_file_that_nobody_named_leads_to_no_file_outside_the_checkout() {
    let dir = tempfile::tempdir().unwrap();
    let (checkout, secret) = (dir.path().join("repo"), dir.path().join("secret"));
    std::fs::create_dir_all(checkout.join(".git")).unwrap();
    std::fs::write(&secret, "machine example.com password hunter2\n").unwrap();
    for key in ["targets", "dockerfile", "baseline", "catalog"] {
        for path in [secret.display().to_string(), "../secret".to_owned(), "/proc/self/environ".to_owned()] {
            std::fs::write(checkout.join("cudalint.toml"), format!("{key} = {path:?}\n")).unwrap();
            let output = run(&checkout, &[("TOKEN", "hunter2")], &[DEMO]);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{key} {path}: {stderr}");
            assert!(stderr.contains("leads out of the checkout") && !stderr.contains("hunter2"), "{stderr}");
        }
    }
    // Named by hand it may be read; what it holds is not repeated all the same.
    for option in ["--targets", "--dockerfile", "--baseline"] {
        let output = run(&checkout, &[], &[DEMO, "--no-config", option, secret.to_str().unwrap()]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{option}: {stderr}");
        assert!(!stderr.to_lowercase().contains("hunter2"), "{option}: {stderr}");
    }
}

#[test]
fn an_empty_variable_is_an_unset_one_and_a_switch_that_is_off_excludes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let empty = [
        "GPU",
        "HOST_DRIVER",
        "TARGETS",
        "TARGET",
        "IGNORE",
        "SELECT",
        "FORMAT",
        "CONFIG",
        "OUTPUT",
        "FAIL_ON",
        "POLICY",
    ];
    let names: Vec<String> = empty.iter().map(|n| format!("CUDALINT_{n}")).collect();
    let mut variables: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "")).collect();
    variables.extend([
        ("CUDALINT_NO_CONFIG", "0"),
        ("CUDALINT_PASSWORD_STDIN", "false"),
        ("CUDALINT_STRICT", "no"),
    ]);
    let output = run(dir.path(), &variables, &[DEMO]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_wrong_in_the_file_is_said_with_line_and_cure() {
    for (config, said) in [
        ("gpu = \"h100\"\nfail_on = \"error\"\n", "line 2: unknown key `fail_on`; did you mean `fail-on`?"),
        ("password-stdin = true\n", "on the command line or in the environment only"),
        ("cache-dir = \"/x\"\n", "on the command line or in the environment only"),
        ("[rules]\nselct = []\n", "line 2: unknown key `rules.selct`; did you mean `rules.select`?"),
        ("[[ignore]]\nrule = \"CUL201\"\n", "missing field `reason`"),
        ("[[ignore]]\nrule = \"CUL201\"\nreason = \" \"\n", "`reason` is empty"),
        ("[[ignore]]\nrule = \"CUL999\"\nreason = \"x\"\n", "no rule `CUL999`"),
        ("[[ignore]]\nrule = \"CUL201\"\nreason = \"x\"\nexpires = \"soon\"\n", "no date"),
        ("[[ignore]]\nrule = \"CUL201\"\nreason = \"x\"\npath = \"[\"\n", "`[` is no pattern"),
        (
            "[[ignore]]\nrule = \"CUL201\"\nreason = \"x\"\nexpire = 2026-01-01\n",
            "did you mean `ignore.expires`?",
        ),
        ("[rules.level]\nCUL201 = \"off\"\n", "unknown variant `off`"),
        ("host-cuda = 12.2\n", "write the number in quotes"),
        ("fail-on = \"eror\"\n", "cudalint.toml: invalid value 'eror' for '--fail-on"),
        ("gpu = \"h1000\"\n", "h1000"),
        ("targets = \"x\"\ngpu = \"h100\"\n", "excludes"),
        ("targets = \"absent.toml\"\n", "absent.toml"),
        ("gpu = \n", "line 1: "),
    ] {
        let ran = judged(config, &[]);
        assert_eq!(ran.status, 2, "{config}: {}", ran.stderr);
        assert!(ran.stderr.contains(said) && ran.stderr.lines().count() == 1, "{config}\n{}", ran.stderr);
    }
}

#[test]
fn a_baseline_covers_what_it_knew_for_the_hosts_it_knew_it_for() {
    let dir = tempfile::tempdir().unwrap();
    let at = |gpus: &[&str], arguments: &[&str]| {
        let gpus: Vec<&str> = gpus.iter().flat_map(|g| ["--gpu", g]).collect();
        let arguments = [&[DEMO, "--host-driver", "535"][..], &gpus, arguments].concat();
        run(dir.path(), &[], &arguments).status.code().unwrap()
    };
    assert_eq!(at(&["t4"], &["-o", "json=known.json"]), 1);
    assert_eq!(at(&["t4"], &["--baseline", "known.json"]), 0);
    assert_eq!(at(&["v100"], &["--baseline", "known.json"]), 1, "another GPU is another finding");
    assert_eq!(at(&["h100", "t4"], &["--baseline", "known.json"]), 0);
    // What was a note is new where it has become an error.
    std::fs::write(dir.path().join("cudalint.toml"), "[rules.level]\nCUL103 = \"error\"\n").unwrap();
    assert_eq!(at(&["t4"], &["--baseline", "known.json"]), 1);
    std::fs::write(dir.path().join("facts.json"), "{\"facts_schema\": 1}").unwrap();
    assert_eq!(at(&["t4"], &["--baseline", "facts.json"]), 2);
    assert_eq!(at(&["t4"], &["--baseline", "absent.json"]), 2);
}

/// The image under test must not be able to silence its gate.
#[test]
fn a_label_of_the_image_is_heeded_only_where_that_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let facts = Path::new(ROOT).join("fixtures/facts/lto-only.json");
    let mut document: Value = serde_json::from_str(&std::fs::read_to_string(facts).unwrap()).unwrap();
    let label = "CUL2: the vendor says so; CUL1: and so; CUL3:; nonsense: x; CUL4: y; CUL5: z; CUL9: z";
    document["image"]["config"]["labels"]["io.github.cudalint.ignore"] = label.into();
    std::fs::write(dir.path().join("f.json"), document.to_string()).unwrap();
    let arguments =
        ["check", "--facts", "f.json", "--host-driver", "550", "--gpu", "h100", "--fail-on", "note"];
    let strict = run(dir.path(), &[], &arguments);
    assert_eq!(strict.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&strict.stderr).contains("heeded only with --allow-image-ignores"));
    let allowed = run(dir.path(), &[], &[&arguments[..], &["--allow-image-ignores"]].concat());
    let stderr = String::from_utf8_lossy(&allowed.stderr).into_owned();
    assert_eq!(allowed.status.code(), Some(0), "{stderr}");
    assert!(
        stderr.contains("ignores CUL3 without a reason") && stderr.contains("no rule `nonsense`"),
        "{stderr}"
    );
}

/// The example that the documentation shows, and the schema that editors use, name the same keys as the program.
#[test]
fn every_key_of_the_schema_is_an_option() {
    let output = run(Path::new(ROOT), &[], &["schema", "config"]);
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    let help = run(Path::new(ROOT), &[], &["check", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    let keys = schema["properties"].as_object().unwrap();
    assert!(keys.len() > 25);
    let documented = std::fs::read_to_string(Path::new(ROOT).join("docs/configuration.md")).unwrap();
    for key in keys.keys().filter(|k| *k != "rules" && *k != "ignore") {
        assert!(help.contains(&format!("--{key}")), "{key} is no option of check");
        assert!(documented.contains(&format!("`{key}`")), "docs/configuration.md does not name {key}");
    }
}
