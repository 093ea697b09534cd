//! Inventory -> the bill of materials: every component and every file with GPU code, judged against nothing.

use super::style::{Style, bytes, safe, shorten};
use crate::facts::json::{arch_name, glibc_needed, kind_name};
use crate::facts::{DeviceCode, FileFacts, ImageFacts};
use crate::inventory::loader::Load;
use crate::inventory::{Component, Inventory, Linkage};
use crate::report::Report;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

/// An ELF object that takes part in the CUDA stack.
#[derive(Serialize, JsonSchema)]
pub struct ObjectJson {
    pub path: String,
    pub layer: u32,
    pub soname: Option<String>,
    pub needed: Vec<String>,
    pub dlopens: Vec<String>,
    pub rpath: Vec<String>,
    pub runpath: Vec<String>,
    pub glibc: Option<String>,
    pub loads: Vec<LoadJson>,
}

/// What the loader finds for a needed library.
#[derive(Serialize, JsonSchema)]
pub struct LoadJson {
    pub soname: String,
    pub path: Option<String>,
    pub status: String,
    pub via: Option<String>,
    pub shadows: Vec<String>,
}

/// Objects with CUDA in their names, their needs or their code; with `all` every ELF file.
pub fn objects(inventory: &Inventory, all: bool) -> Vec<ObjectJson> {
    let component_paths: Vec<_> = inventory.components.iter().map(|c| &c.place.path).collect();
    let takes_part = |f: &&FileFacts| {
        all || f.device_code.is_some()
            || component_paths.contains(&&f.place.path)
            || f.elf
                .as_ref()
                .is_some_and(|e| !e.dlopens.is_empty() || e.needed.iter().any(|n| is_stack_name(n)))
    };
    let files = inventory.facts.files.iter().filter(takes_part);
    files
        .filter_map(|f| {
            let elf = f.elf.as_ref()?;
            Some(ObjectJson {
                path: f.place.path.to_string(),
                layer: f.place.layer.0,
                soname: elf.soname.clone(),
                needed: elf.needed.clone(),
                dlopens: elf.dlopens.clone(),
                rpath: elf.rpath.clone(),
                runpath: elf.runpath.clone(),
                glibc: glibc_needed(elf).map(|v| v.to_string()),
                loads: loads(inventory, f),
            })
        })
        .collect()
}

/// Names of libraries that make a file part of the CUDA stack.
fn is_stack_name(name: &str) -> bool {
    const PREFIXES: [&str; 6] = ["libcu", "libnccl", "libnv", "libnpp", "libtorch", "libc10"];
    PREFIXES.iter().any(|p| name.starts_with(p))
}

/// What the loader does with each name that a file asks for, as the process that opens it would meet it.
fn loads(inventory: &Inventory, file: &FileFacts) -> Vec<LoadJson> {
    let Some(process) = inventory.processes.open(file) else { return Vec::new() };
    let own = process.objects.iter().find(|o| o.file.place.path == file.place.path);
    own.map(|o| o.loads.iter().map(load_json).collect()).unwrap_or_default()
}

fn load_json(load: &Load) -> LoadJson {
    LoadJson {
        soname: load.name.clone(),
        path: load.file.map(|f| f.place.path.to_string()),
        status: load.status.name().to_owned(),
        via: load.via.map(|v| v.name().to_owned()),
        shadows: load.shadows.iter().map(|f| f.place.path.to_string()).collect(),
    }
}

/// Writes the bill of materials.
pub fn text(out: &mut dyn io::Write, inventory: &Inventory, style: Style) -> io::Result<()> {
    let facts = inventory.facts;
    let mut text = String::new();
    let _ = writeln!(text, "{}", super::title(&facts.image, style).join("   "));
    // The same table as the report's, without hosts.
    text.push_str(&super::text::stack(&Report::unjudged(inventory), style));
    components(&mut text, inventory, style);
    code(&mut text, facts, style);
    settings(&mut text, facts, style);
    if !facts.problems.is_empty() {
        let _ = writeln!(text, "\n{}", style.bold("problems"));
        for problem in &facts.problems {
            let _ = writeln!(text, "  {}: {}", safe(problem.place.path.as_str()), safe(&problem.detail));
        }
    }
    out.write_all(text.as_bytes())
}

fn components(text: &mut String, inventory: &Inventory, style: Style) {
    if inventory.components.is_empty() {
        text.push_str("\nno part of the CUDA stack was found\n");
        return;
    }
    let _ = writeln!(text, "\n{}", style.bold("files and packages"));
    let width = inventory.components.iter().map(|c| c.display.chars().count()).max().unwrap_or(0);
    for component in &inventory.components {
        let version = component.version.as_deref().unwrap_or("?");
        let _ = writeln!(
            text,
            "  {:<width$}  {:<16} {}  layer {}  {}",
            safe(&component.display),
            safe(version),
            safe(component.place.path.as_str()),
            component.place.layer.0 + 1,
            style.dim(&remark(component)),
        );
    }
}

fn remark(component: &Component) -> String {
    let linkage = if component.linkage == Some(Linkage::Static) { "static, " } else { "" };
    let cuda = match (&component.cuda, component.component.as_str()) {
        (Some(cuda), name) if name != "cudart" => format!("CUDA {cuda}, "),
        _ => String::new(),
    };
    let loaded = if component.reachable == Some(true) { "loaded, " } else { "" };
    let disagrees = component.disagreement.as_ref().map(|d| format!("; but {}", safe(d))).unwrap_or_default();
    format!("({linkage}{cuda}{loaded}from {}{disagrees})", safe(&component.how))
}

fn code(text: &mut String, facts: &ImageFacts, style: Style) {
    let with_code: Vec<(&FileFacts, &DeviceCode)> =
        facts.files.iter().filter_map(|f| Some((f, f.device_code.as_ref()?))).collect();
    if with_code.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{}", style.bold("GPU code"));
    for (file, code) in with_code {
        let elsewhere = match code.embedded_containers {
            0 => String::new(),
            n => format!(", {n} outside the fatbin sections"),
        };
        let _ = writeln!(
            text,
            "  {}  {}",
            safe(file.place.path.as_str()),
            style.dim(&format!("(containers: {}{elsewhere}; {})", code.containers, bytes(code.bytes)))
        );
        let mut kinds: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for row in &code.rows {
            let isa = row.image.ptx_isa.map(|(a, b)| format!(" (PTX {a}.{b})")).unwrap_or_default();
            let name = format!("{}{isa}", arch_name(&row.image));
            *kinds.entry(kind_name(row.image.kind)).or_default().entry(name).or_default() += row.count;
        }
        for (kind, archs) in kinds {
            let list: Vec<String> =
                archs.into_iter().map(|(name, count)| format!("{name} ×{count}")).collect();
            let _ = writeln!(text, "      {kind:<6} {}", list.join("  "));
        }
    }
}

fn settings(text: &mut String, facts: &ImageFacts, style: Style) {
    let config = &facts.image.config;
    let relevant = |name: &str| {
        name.contains("CUDA") || name.contains("NVIDIA") || name.contains("NCCL") || name.starts_with("LD_")
    };
    let env: Vec<&(String, String)> = config.env.iter().filter(|(name, _)| relevant(name)).collect();
    if env.is_empty() && config.entrypoint.is_empty() && config.cmd.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{}", style.bold("image settings"));
    for (name, value) in env {
        let _ = writeln!(text, "  {}={}", safe(name), shorten(&safe(value), 100));
    }
    if !config.entrypoint.is_empty() {
        let _ = writeln!(text, "  entrypoint  {}", safe(&config.entrypoint.join(" ")));
    }
    if !config.cmd.is_empty() {
        let _ = writeln!(text, "  command     {}", safe(&config.cmd.join(" ")));
    }
}
