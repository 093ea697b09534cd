//! Published image configurations (`rules/catalog/image_configs.toml`), rebuilt as facts -> the findings about settings and
//! container runtime that each deserves, and no others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use cudalint::catalog::Catalog;
use cudalint::facts::{
    Config, CudartCode, ElfFacts, FileFacts, FileKind, ImageFacts, ImageIdentity, LayerIdentity, Link,
    Package, PackageFact, PackageOrigin, Place,
};
use cudalint::inventory;
use cudalint::names::{ImagePath, LayerIndex, Platform};
use cudalint::report::Level;
use cudalint::target::profile::{Host, RuntimeMode};
use cudalint::target::{Driver, Target, resolve_gpu};
use cudalint::version::Version;
use std::collections::BTreeMap;

fn tables() -> toml::Table {
    include_str!("../rules/catalog/image_configs.toml").parse().unwrap()
}

fn text<'t>(row: &'t toml::Value, key: &str) -> &'t str {
    row.get(key).and_then(|v| v.as_str()).unwrap_or_default()
}

fn list<'t>(row: &'t toml::Value, key: &str) -> Vec<&'t toml::Value> {
    row.get(key).and_then(|v| v.as_array()).map(|a| a.iter().collect()).unwrap_or_default()
}

fn place(path: &str) -> Place {
    Place { layer: LayerIndex(0), path: ImagePath::new(path) }
}

fn file(path: &str, kind: FileKind) -> FileFacts {
    FileFacts { place: place(path), size: 1, kind, elf: None, device_code: None, text: None, sha256: None }
}

/// A shared library, which says its CUDA release where it is the runtime.
fn library(path: &str) -> FileFacts {
    let name = path.rsplit('/').next().unwrap();
    let version = name.split_once(".so.").and_then(|(_, v)| Version::parse(v));
    let code = version.filter(|_| name.starts_with("libcudart")).map(|v| v.major() * 1000 + v.minor() * 10);
    let mut found = file(path, FileKind::Elf);
    found.elf = Some(ElfFacts {
        bits: 64,
        machine: "amd64".to_owned(),
        kind: "DYN".to_owned(),
        soname: Some(name.to_owned()),
        cudart: code.map(|c| CudartCode { version: u32::try_from(c).ok() }),
        ..ElfFacts::default()
    });
    found
}

/// The image as it stands in the file, with a program that uses the CUDA runtime of its release.
fn facts(row: &toml::Value, requires: &BTreeMap<String, String>) -> ImageFacts {
    let env: Vec<(String, String)> = list(row, "env")
        .into_iter()
        .map(|v| v.as_str().unwrap().split_once('=').unwrap())
        .map(|(name, value)| match value.strip_prefix("@require:") {
            Some(id) => (name.to_owned(), requires[id].clone()),
            None => (name.to_owned(), value.to_owned()),
        })
        .collect();
    let labels: BTreeMap<String, String> = row
        .get("labels")
        .and_then(|l| l.as_table())
        .map(|l| l.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect())
        .unwrap_or_default();
    let entrypoint = list(row, "entrypoint").into_iter().map(|v| v.as_str().unwrap().to_owned()).collect();
    let config = Config { env, entrypoint, labels, ..Config::default() };
    let mut files = vec![library("/usr/lib/x86_64-linux-gnu/libc.so.6")];
    let mut cache = file("/etc/ld.so.cache", FileKind::Text);
    cache.text = Some(String::new());
    files.push(cache);
    let mut loader_conf = file("/etc/ld.so.conf", FileKind::Text);
    loader_conf.text = Some("include /etc/ld.so.conf.d/*.conf\n".to_owned());
    files.push(loader_conf);
    let mut links = Vec::new();
    for entry in list(row, "files") {
        let path = text(entry, "path");
        match text(entry, "kind") {
            "symlink" => {
                let target = text(entry, "target").to_owned();
                links.push(Link { place: place(path), target, hard: false });
            }
            "elf" if path.contains(".so") => files.push(library(path)),
            "file" => {
                let mut found = file(path, FileKind::Text);
                found.text = Some(text(entry, "content").to_owned());
                files.push(found);
            }
            _ => {}
        }
    }
    let release = config.env("CUDA_VERSION").and_then(Version::parse).unwrap_or_else(|| Version::of(12, 4));
    let mut program = library("/opt/app/run");
    let code = release.major() * 1000 + release.minor() * 10;
    let elf = program.elf.as_mut().unwrap();
    elf.soname = None;
    elf.interpreter = Some("/lib64/ld-linux-x86-64.so.2".to_owned());
    elf.cudart = Some(CudartCode { version: u32::try_from(code).ok() });
    files.push(program);
    files.sort_by(|a, b| a.place.path.cmp(&b.place.path));
    files.dedup_by(|a, b| a.place.path == b.place.path);
    links.sort();
    let packages = list(row, "packages").into_iter().map(|p| {
        let (name, version) = p.as_str().unwrap().split_once('=').unwrap_or((p.as_str().unwrap(), "0"));
        let fact = PackageFact {
            origin: PackageOrigin::Dpkg,
            name: name.to_owned(),
            version: version.to_owned(),
            requires: Vec::new(),
        };
        Package { place: place("/var/lib/dpkg/status"), fact }
    });
    ImageFacts {
        packages: packages.collect(),
        image: ImageIdentity {
            reference: text(row, "reference").to_owned(),
            platform: Platform::parse("linux/amd64").unwrap(),
            config,
            layers: vec![LayerIdentity::default()],
            ..ImageIdentity::default()
        },
        complete: true,
        files,
        links,
        ..ImageFacts::default()
    }
}

/// What is said of settings and container runtime: `level rule`.
fn said(facts: &ImageFacts, host: &str, gpu: &str, catalog: &Catalog) -> Vec<String> {
    let inventory = inventory::build(facts, catalog);
    let target = Target {
        name: "host".to_owned(),
        driver: Some(Driver::parse(host, catalog).unwrap()),
        gpus: vec![resolve_gpu(gpu, catalog).unwrap()],
        host: Host { runtime_mode: Some(RuntimeMode::Legacy), ..Host::default() },
    };
    let report = cudalint::check(&inventory, &[target], catalog, cudalint::rules::Policy::default());
    let of_settings = report.findings.iter().filter(|f| {
        f.finding.level > Level::Pass && ["CUL5", "CUL60"].iter().any(|c| f.finding.rule.code.starts_with(c))
    });
    let policy = |name: &str| name.contains("security-fix");
    let mut out: Vec<String> = of_settings
        .filter(|f| !policy(f.finding.rule.name))
        .map(|f| format!("{} {}", f.finding.level.name(), f.finding.rule.name))
        .collect();
    out.sort();
    out.dedup();
    out
}

/// What each deserves on a host whose driver is newer than all of them, in legacy mode. Where an alternative of the requirement
/// counts on a compat package and the record has none, that is said; images without NVIDIA's variables are told so.
const DESERVED: &[(&str, &[&str])] = &[
    ("cuda-11.8.0-base", &[]),
    ("cuda-11.8.0-cudnn8-runtime", &[]),
    ("cuda-12.0.0-base", &[]),
    ("cuda-12.2.2-cudnn8", &["note cuda-version-variable"]),
    ("cuda-12.4.1-base", &[]),
    ("cuda-12.4.1-cudnn-runtime", &[]),
    ("cuda-12.8.0-base", &[]),
    ("cuda-12.8.0-runtime", &[]),
    ("cuda-12.8.0-cudnn-devel", &[]),
    ("cuda-12.8.0-base-arm64", &[]),
    ("cuda-13.1.1-base", &[]),
    ("cuda-13.1.1-runtime", &[]),
    ("cuda-13.2.1-runtime", &["note requirement-disagrees"]),
    ("cuda-10.2-base", &[]),
    ("cuda-8.0-runtime", &[]),
    ("ngc-pytorch-22.09", &["note compat-needs-entry-point"]),
    ("ngc-pytorch-25.01", &[]),
    ("ngc-cuda13", &[]),
    ("triton", &["note no-gpu-requested"]),
    ("pytorch-runtime", &[]),
    ("tensorflow-gpu", &[]),
    ("vllm-0.5.0", &["note requirement-disagrees"]),
    ("vllm-compat-in-ldconf", &[]),
    ("vllm-later", &[]),
    ("tgi", &["note requirement-disagrees"]),
    ("conda-generic", &["note no-gpu-requested"]),
];

fn images() -> BTreeMap<String, ImageFacts> {
    let tables = tables();
    let strings = tables["require"].as_array().unwrap().iter();
    let requires: BTreeMap<String, String> =
        strings.map(|r| (text(r, "id").to_owned(), text(r, "value").to_owned())).collect();
    let rows = tables["image"].as_array().unwrap().iter();
    rows.map(|row| (text(row, "id").to_owned(), facts(row, &requires))).collect()
}

#[test]
fn every_published_configuration_gets_the_findings_it_deserves_and_no_others() {
    let catalog = Catalog::built_in().unwrap();
    let images = images();
    assert_eq!(images.len(), DESERVED.len());
    for (id, deserved) in DESERVED {
        assert_eq!(said(&images[*id], "615.71.09", "a100", &catalog), *deserved, "{id}");
    }
}

#[test]
fn published_configurations_refuse_the_hosts_that_they_really_refuse() {
    let catalog = Catalog::built_in().unwrap();
    let images = images();
    for (id, driver, gpu, refused) in [
        ("cuda-12.4.1-base", "535.183.01", "rtx4090", false),
        ("cuda-12.4.1-base", "545.23.08", "rtx4090", true),
        ("cuda-12.4.1-base", "545.23.08", "h100", true),
        ("cuda-12.8.0-base", "550.54.14", "rtx4090", true),
        ("cuda-12.8.0-base", "550.54.15", "h100", false),
        ("cuda-12.8.0-base", "555.42.06", "a100", true),
        ("cuda-13.1.1-base", "580.95.05", "rtx5090", true),
        ("cuda-13.1.1-base", "580.95.05", "h100", false),
        ("cuda-11.8.0-base", "515.65.01", "rtx3090", false),
        ("ngc-pytorch-25.01", "450.80.02", "a100", false),
        ("pytorch-runtime", "450.80.02", "a100", false),
    ] {
        let said = said(&images[id], driver, gpu, &catalog);
        let is_refused = said.contains(&"error requirement-not-met".to_owned());
        assert_eq!(is_refused, refused, "{id} on {driver} with {gpu}: {said:?}");
    }
}

/// The record lists no library below the directory that its /etc/ld.so.conf.d names; with one there, every newer driver meets it.
#[test]
fn a_compat_directory_in_the_loaders_configuration_is_said_once_a_library_stands_in_it() {
    let catalog = Catalog::built_in().unwrap();
    let mut facts = images()["vllm-compat-in-ldconf"].clone();
    let conf = |f: &&FileFacts| f.place.path.as_str().starts_with("/etc/ld.so.conf.d/");
    let text = facts.files.iter().find(conf).and_then(|f| f.text.clone()).unwrap();
    let dir = text.lines().find(|l| l.contains("compat")).unwrap().trim().trim_end_matches('/').to_owned();
    facts.files.push(library(&format!("{dir}/libcuda.so.550.54.15")));
    facts.files.sort_by(|a, b| a.place.path.cmp(&b.place.path));
    let said = |driver: &str| said(&facts, driver, "a100", &catalog);
    assert!(
        said("615.71.09").contains(&"warning compat-older-than-driver".to_owned()),
        "{:?}",
        said("615.71.09")
    );
    let of_rule = |s: &String| s.ends_with("compat-older-than-driver");
    assert!(!said("550.54.15").iter().any(of_rule) && !said("535.183.01").iter().any(of_rule));
}
