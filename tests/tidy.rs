//! What the architecture promises, checked: module arrows, a page for every rule, files small enough to read, no words
//! that do not belong here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules a module may use. The small words `names`, `version` and `limits` are free for all.
const ARROWS: &[(&str, &[&str])] = &[
    ("names", &[]),
    ("version", &[]),
    ("limits", &[]),
    ("facts", &[]),
    ("image", &["facts"]),
    ("scan", &["image", "facts"]),
    ("catalog", &[]),
    ("inventory", &["facts", "catalog"]),
    ("target", &["catalog"]),
    ("report", &["inventory", "target", "facts"]),
    ("rules", &["report", "inventory", "target", "catalog", "facts"]),
    ("dockerfile", &["report", "facts"]),
    ("gate", &["report"]),
    ("matrix", &["rules", "report", "inventory", "target", "catalog"]),
    ("admission", &["matrix", "rules", "report", "inventory", "target", "catalog", "facts"]),
    ("compare", &["matrix", "rules", "report", "inventory", "target"]),
    ("plan", &["matrix", "rules", "report", "inventory", "target", "catalog"]),
    ("export", &["render", "matrix", "rules", "report", "inventory", "target", "catalog", "facts"]),
    ("sweep", &["render", "rules", "report", "inventory", "target", "catalog", "image", "facts"]),
    ("render", &["matrix", "compare", "plan", "report", "inventory", "target", "facts"]),
];
const SMALL_WORDS: &[&str] = &["names", "version", "limits"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            out.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            out.push(path);
        }
    }
    out.sort();
    out
}

fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Modules named by `crate::NAME`, outside tests.
fn uses(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let code: String =
        code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut out = BTreeSet::new();
    for part in code.split("crate::").skip(1) {
        if let Some(list) = part.strip_prefix('{') {
            let names = list.split('}').next().unwrap().split(',');
            out.extend(names.map(|n| n.trim().split("::").next().unwrap().to_owned()));
        } else {
            out.insert(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    out
}

#[test]
fn modules_only_use_what_is_below_them() {
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), ".rs") {
        let module = module_of(&path);
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else { continue };
        for used in uses(&fs::read_to_string(&path).unwrap()) {
            let fine =
                used == module || SMALL_WORDS.contains(&used.as_str()) || allowed.contains(&used.as_str());
            if !fine && ARROWS.iter().any(|(name, _)| *name == used) {
                wrong.push(format!("{} uses crate::{used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "upward imports:\n{}", wrong.join("\n"));
}

#[test]
fn pure_modules_forbid_files_environment_and_clock() {
    for module in ["facts", "inventory", "catalog", "target", "rules", "report", "dockerfile", "gate"] {
        let text = fs::read_to_string(root().join(format!("src/{module}/mod.rs"))).unwrap();
        let line = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";
        assert!(text.contains(line), "src/{module}/mod.rs lacks {line}");
    }
}

#[test]
fn every_file_says_what_it_turns_into_what() {
    for path in files(&root().join("src"), ".rs") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for path in files(&root().join("src"), ".rs") {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(lines <= 700, "{} has {lines} lines before its tests", path.display());
    }
}

#[test]
fn every_rule_has_its_page_and_every_page_its_rule() {
    let rules: BTreeSet<String> = cudalint::rules::RULES.iter().map(|r| r.id.name.to_owned()).collect();
    let pages: BTreeSet<String> = files(&root().join("rules"), ".md")
        .iter()
        .map(|p| p.file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|n| n != "README")
        .collect();
    assert_eq!(rules, pages);
    for rule in &rules {
        let file = root().join(format!("src/rules/{}.rs", rule.replace('-', "_")));
        assert!(file.exists(), "{} is missing", file.display());
    }
    let codes: BTreeSet<&str> = cudalint::rules::RULES.iter().map(|r| r.id.code).collect();
    assert_eq!(codes.len(), rules.len(), "a rule code is used twice");
}

#[test]
fn a_page_names_its_code_and_has_all_its_parts() {
    for rule in cudalint::rules::RULES {
        let text = fs::read_to_string(root().join(format!("rules/{}.md", rule.id.name))).unwrap();
        let block =
            text.strip_prefix("```toml\n").and_then(|t| t.split_once("\n```\n")).expect(rule.id.name).0;
        let head: toml::Table = block.parse().expect(rule.id.name);
        assert_eq!(head["code"].as_str(), Some(rule.id.code), "{}", rule.id.name);
        assert_eq!(head["id"].as_str(), Some(rule.id.name));
        let sources = head["sources"].as_array().expect("sources");
        assert!(!sources.is_empty(), "{} has no source", rule.id.name);
        for heading in ["What to do", "How cudalint knows", "When it is wrong", "Examples"] {
            assert!(text.contains(&format!("## {heading}")), "{} lacks `## {heading}`", rule.id.name);
        }
        assert!(text.contains("```console"), "{} has no example that runs", rule.id.name);
    }
}

#[test]
fn every_document_under_fixtures_is_used() {
    let mut texts = String::new();
    for path in files(&root().join("rules"), ".md").iter().chain(&files(&root().join("tests"), ".rs")) {
        texts.push_str(&fs::read_to_string(path).unwrap());
    }
    texts.push_str(&fs::read_to_string(root().join("README.md")).unwrap());
    let facts = files(&root().join("fixtures/facts"), ".json");
    for path in facts.into_iter().chain(files(&root().join("fixtures/targets"), ".toml")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(texts.contains(&name), "{} is used by nothing", path.display());
    }
}

#[test]
fn paths_that_the_documents_name_exist() {
    let pattern =
        regex::Regex::new(r"`((?:src|tests|rules|fixtures|benches|\.ci)/[A-Za-z0-9_./-]+)`").unwrap();
    for path in documents() {
        let document = path.display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        for found in pattern.captures_iter(&text) {
            let path = found[1].trim_end_matches('/');
            if path.contains("NAME") {
                continue;
            }
            assert!(root().join(path).exists(), "{document} names `{path}`, which does not exist");
        }
    }
}

/// What people read beside the pages of rules.
fn documents() -> Vec<PathBuf> {
    let named =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "rules/README.md"].map(|n| root().join(n));
    named.into_iter().chain(files(&root().join("docs"), ".md")).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let pattern = regex::Regex::new(r"\]\(([^)#\s]*)(#[^)\s]*)?\)").unwrap();
    let headings = |text: &str| -> Vec<String> {
        let heading = |l: &str| {
            let title = l.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            format!("#{}", kept.collect::<String>().replace(' ', "-"))
        };
        text.lines().filter(|l| l.starts_with('#')).map(heading).collect()
    };
    let mut links = 0;
    for path in documents().into_iter().chain(files(&root().join("rules"), ".md")) {
        let text = fs::read_to_string(&path).unwrap();
        for found in pattern.captures_iter(&text).filter(|f| !f[1].contains("://")) {
            links += 1;
            let target =
                if found[1].is_empty() { path.clone() } else { path.parent().unwrap().join(&found[1]) };
            assert!(target.exists(), "{} links to {}, which does not exist", path.display(), &found[1]);
            if let Some(anchor) = found.get(2) {
                let there = headings(&fs::read_to_string(&target).unwrap());
                assert!(
                    there.contains(&anchor.as_str().to_owned()),
                    "{}: no {}",
                    path.display(),
                    anchor.as_str()
                );
            }
        }
    }
    assert!(links > 200, "only {links} links");
}

/// Who pastes an error into `docs/errors.md` finds the rule that speaks of it.
#[test]
fn the_index_of_errors_has_every_message_of_every_page() {
    let index = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let row = |l: &str| {
        let (message, rules) = l.strip_prefix("| `")?.rsplit_once("` | ")?;
        let message = message.trim_matches(['`', ' ']).replace("\\|", "|").replace("`<br>`", " ");
        let parts: Vec<String> = message.split('…').map(collapsed).collect();
        Some((parts, rules.to_owned()))
    };
    let rows: Vec<(Vec<String>, String)> = index.lines().filter_map(row).collect();
    assert!(rows.len() > 100);
    let says = |line: &str, parts: &[String]| {
        let mut rest = line;
        parts.iter().all(|part| {
            let at = rest.find(part.as_str());
            rest = at.map_or("", |at| &rest[at + part.len()..]);
            at.is_some()
        })
    };
    let mut missing = Vec::new();
    for rule in cudalint::rules::RULES {
        let page = fs::read_to_string(root().join(format!("rules/{}.md", rule.id.name))).unwrap();
        let Some((_, after)) = page.split_once("## What you would see at run time") else { continue };
        let section = after.split("\n## ").next().unwrap();
        let blocks = section.split("```text\n").skip(1).filter_map(|b| b.split("\n```").next());
        for block in blocks {
            // Long messages are wrapped on the page.
            let said = collapsed(&block.replace('…', " "));
            if !rows.iter().any(|(parts, rules)| rules.contains(rule.id.code) && says(&said, parts)) {
                missing.push(format!("{}: {said}", rule.id.code));
            }
        }
    }
    assert!(missing.is_empty(), "docs/errors.md lacks\n{}", missing.join("\n"));
}

fn collapsed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Pods that differ in settings that nobody looks at share a judgment; a rule that looks at a new one must be found by it.
#[test]
fn every_variable_that_a_rule_names_counts_for_admission() {
    let mut names = Vec::new();
    for dir in ["src/rules", "src/inventory"] {
        for path in files(&root().join(dir), ".rs") {
            let text = fs::read_to_string(path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for part in code.split('"').skip(1).step_by(2) {
                // Beginnings of symbol versions are no variables.
                let is_name = part.len() > 3
                    && !part.ends_with('_')
                    && part.contains('_')
                    && part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
                names.extend(is_name.then(|| part.to_owned()));
            }
        }
    }
    assert!(names.len() > 10, "{names:?}");
    let catalog = cudalint::catalog::Catalog::built_in().unwrap();
    names.extend(catalog.settings.iter().map(|s| s.id.clone()));
    names.retain(|name| {
        let env = vec![(name.clone(), "x".to_owned())];
        cudalint::admission::pods::Overrides { env, ..Default::default() }.essence().env.is_empty()
    });
    assert!(names.is_empty(), "not among the names that matter: {names:?}");
}
