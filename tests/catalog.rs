//! The catalog is complete and coherent: every row has its source and status, keys are unique, numbers agree.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use cudalint::catalog::{Catalog, FILES};
use std::collections::BTreeSet;

fn table(file: &str) -> toml::Table {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("rules/catalog/{file}.toml"));
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

fn tables() -> Vec<(&'static str, toml::Table)> {
    FILES.iter().map(|f| (f.name, table(f.name))).collect()
}

/// Tables whose rows are candidates or conventions and name their evidence in other fields.
fn needs_status(table: &str) -> bool {
    !matches!(table, "lint_rule")
}

#[test]
fn every_row_has_its_source_and_its_status() {
    let mut wrong = Vec::new();
    for (file, table) in tables() {
        for (name, value) in &table {
            let Some(rows) = value.as_array() else { continue };
            for (index, row) in rows.iter().filter_map(|r| r.as_table()).enumerate() {
                let source = row.get("source").and_then(|s| s.as_str()).unwrap_or_default();
                if source.len() < 4 {
                    wrong.push(format!("{file}: [[{name}]] {index} has no source"));
                }
                let known = ["VERIFIED", "DOCUMENTED", "INFERRED", "MIXED"];
                let status = row.get("status").or_else(|| row.get("basis")).and_then(|s| s.as_str());
                if needs_status(name) && !status.is_some_and(|s| known.contains(&s)) {
                    wrong.push(format!("{file}: [[{name}]] {index} has no status"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn keys_are_unique() {
    let catalog = Catalog::built_in().unwrap();
    let unique = |what: &str, keys: Vec<String>| {
        let set: BTreeSet<&String> = keys.iter().collect();
        assert_eq!(set.len(), keys.len(), "{what} has a key twice");
    };
    unique("branches", catalog.branches.iter().map(|b| b.branch.to_string()).collect());
    unique("toolkits", catalog.toolkits.iter().map(|t| t.version.to_string()).collect());
    unique("ptx", catalog.ptx.iter().map(|p| p.ptx.to_string()).collect());
    unique("archs", catalog.archs.iter().map(|a| a.cc.to_string()).collect());
    unique("gpus", catalog.gpus.iter().map(|g| g.name.clone()).collect());
    unique("errors", catalog.errors.iter().map(|e| e.code.to_string()).collect());
    unique("components", catalog.components.iter().map(|c| c.component.clone()).collect());
    let stems: Vec<String> = catalog.components.iter().flat_map(|c| c.stems.clone()).collect();
    unique("stems of components", stems);
}

#[test]
fn newer_branches_report_newer_cuda() {
    let catalog = Catalog::built_in().unwrap();
    for pair in catalog.branches.windows(2) {
        assert!(pair[0].cuda_max <= pair[1].cuda_max, "{} and {}", pair[0].branch, pair[1].branch);
    }
}

#[test]
fn branches_and_architectures_agree_on_who_supports_whom() {
    let catalog = Catalog::built_in().unwrap();
    for arch in &catalog.driver_archs {
        for branch in &catalog.branches {
            let within =
                branch.branch >= arch.first_branch && arch.last_branch.is_none_or(|l| branch.branch <= l);
            assert_eq!(branch.cc.contains(&arch.cc), within, "cc {} on branch {}", arch.cc, branch.branch);
        }
    }
}

#[test]
fn toolkits_name_branches_that_exist_and_families_begin_with_their_first_release() {
    let catalog = Catalog::built_in().unwrap();
    for toolkit in &catalog.toolkits {
        let branch = catalog.branch(toolkit.driver_branch);
        assert!(branch.is_some(), "CUDA {} names branch {}", toolkit.version, toolkit.driver_branch);
        assert_eq!(branch.unwrap().cuda_max, toolkit.cuda, "CUDA {}", toolkit.version);
    }
    for family in &catalog.families {
        assert_eq!(u64::from(family.error_35_below), family.cuda_major * 1000);
        assert_eq!(family.linux_driver_min.major(), u64::from(family.branch_min));
        let branch = catalog.branch(family.branch_min).unwrap();
        assert_eq!(
            branch.cuda_max.major(),
            family.cuda_major,
            "the floor of {}.x is its branch",
            family.cuda_major
        );
    }
}

#[test]
fn every_gpu_has_an_architecture_and_no_alias_means_two_things() {
    let catalog = Catalog::built_in().unwrap();
    for gpu in &catalog.gpus {
        assert!(catalog.arch_row(gpu.cc).is_some(), "{} has cc {}", gpu.name, gpu.cc);
        let resolved = cudalint::target::resolve_gpu(&gpu.name, &catalog);
        match resolved {
            Ok(found) => assert_eq!(found.cc, gpu.cc, "{}", gpu.name),
            Err(error) => assert!(error.message.contains("several products"), "{}: {error}", gpu.name),
        }
    }
    for row in &catalog.cloud {
        assert!(
            catalog.gpus.iter().any(|g| g.name == row.gpu),
            "{} {} names {}",
            row.provider,
            row.instance,
            row.gpu
        );
    }
}

#[test]
fn ptx_grows_with_cuda_and_the_matrix_follows_the_branches() {
    let catalog = Catalog::built_in().unwrap();
    for pair in catalog.ptx.windows(2) {
        assert!(pair[0].ptx < pair[1].ptx && pair[0].cuda <= pair[1].cuda, "PTX {}", pair[1].ptx);
    }
    for cell in &catalog.compat_matrix {
        let package =
            catalog.compat_packages.iter().find(|p| p.package == cell.package).expect(&cell.package);
        let wanted = match cell.base_branch.cmp(&package.driver_branch) {
            std::cmp::Ordering::Less => "compatible",
            std::cmp::Ordering::Equal => "not-needed",
            std::cmp::Ordering::Greater => "not-compatible",
        };
        assert_eq!(cell.result, wanted, "{} on {}", cell.package, cell.base_branch);
    }
}

#[test]
fn the_errors_that_findings_quote_are_there_word_for_word() {
    let catalog = Catalog::built_in().unwrap();
    let text = |code| catalog.error(code).and_then(|e| e.text.clone()).unwrap();
    assert_eq!(text(35), "CUDA driver version is insufficient for CUDA runtime version");
    assert_eq!(text(100), "no CUDA-capable device is detected");
    assert_eq!(text(209), "no kernel image is available for execution on the device");
    assert_eq!(text(222), "the provided PTX was compiled with an unsupported toolchain.");
    assert_eq!(text(803), "system has unsupported display driver / cuda driver combination");
    assert_eq!(text(804), "forward compatibility was attempted on non supported HW");
}

#[test]
fn every_candidate_of_the_field_has_its_rule_or_a_reason_for_having_none() {
    let table = table("frameworks");
    let rows = table["lint_rule"].as_array().unwrap();
    assert_eq!(rows.len(), 57);
    for row in rows {
        let id = row["id"].as_str().unwrap();
        match (row.get("rule").and_then(|r| r.as_str()), row.get("left").and_then(|l| l.as_str())) {
            (Some(rule), None) => {
                assert!(cudalint::rules::find(rule).is_some(), "{id}: there is no rule `{rule}`");
            }
            (None, Some(reason)) => assert!(reason.len() > 20, "{id}: says nothing"),
            _ => panic!("{id} needs `rule` or `left`"),
        }
    }
}
