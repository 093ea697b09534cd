//! Objects of a process -> symbols and symbol versions that one asks for and the library it gets does not have.

use super::loader::{Object, Process, Via};
use crate::facts::FileFacts;
use crate::version::Version;

/// Something that is asked for and not there.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap<'a> {
    /// Who asks.
    pub object: &'a FileFacts,
    /// The library that should have it; `None` where no library of the process has a torch symbol.
    pub provider: Option<&'a FileFacts>,
    pub what: Missing,
    /// How many symbols of that library are missing in all.
    pub count: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Missing {
    Symbol {
        name: String,
        version: Option<String>,
    },
    /// A version node as a whole: `GLIBC_2.38`.
    Version(String),
}

impl Gap<'_> {
    /// What the loader of glibc prints.
    pub fn text(&self) -> String {
        let object = &self.object.place.path;
        match (&self.what, self.provider) {
            (Missing::Symbol { name, version: Some(version) }, _) => {
                format!("{object}: undefined symbol: {name}, version {version}")
            }
            (Missing::Symbol { name, version: None }, _) => format!("{object}: undefined symbol: {name}"),
            (Missing::Version(version), Some(provider)) => {
                // The loader prints the name it opened, which is the soname.
                let soname = provider.elf.as_ref().and_then(|e| e.soname.as_deref());
                let opened = soname
                    .map_or_else(|| provider.place.path.clone(), |s| provider.place.path.parent().join(s));
                format!("{opened}: version `{version}' not found (required by {object})")
            }
            (Missing::Version(version), None) => {
                format!("version `{version}' not found (required by {object})")
            }
        }
    }
}

/// All gaps of the objects that were opened last.
pub fn find<'a>(process: &Process<'a>) -> Vec<Gap<'a>> {
    process.objects.iter().skip(process.inherited).flat_map(|o| of_object(process, o)).collect()
}

fn of_object<'a>(process: &Process<'a>, object: &Object<'a>) -> Vec<Gap<'a>> {
    let mut out = Vec::new();
    for (library, wanted) in &object.elf.versions_needed {
        let Some(provider) = process.object(library).filter(|p| !p.elf.versions_provided.is_empty()) else {
            continue;
        };
        let missing: Vec<&String> =
            wanted.iter().filter(|v| !provider.elf.versions_provided.contains(v)).collect();
        // The newest names the need best.
        let newest = missing.iter().max_by_key(|v| v.rsplit('_').next().and_then(Version::parse));
        if let Some(version) = newest {
            let what = Missing::Version((**version).clone());
            out.push(Gap { object: object.file, provider: Some(provider.file), what, count: missing.len() });
        }
    }
    for (library, symbols) in object.elf.imports.iter().filter(|(library, _)| !library.is_empty()) {
        let Some(provider) = process.object(library) else { continue };
        if provider.elf.exports.is_none() {
            continue;
        }
        // The loader takes any symbol from a library without version nodes for the one that is asked for.
        let has_versions = !provider.elf.versions_provided.is_empty();
        let missing: Vec<(&str, Option<&str>)> = symbols
            .iter()
            .map(|s| s.split_once('@').map_or((s.as_str(), None), |(name, version)| (name, Some(version))))
            .filter(|(_, version)| version.is_none() || has_versions)
            .filter(|(name, _)| provider.elf.exports_symbol(name) == Some(false) && !elsewhere(process, name))
            .collect();
        if let Some((name, version)) = missing.first() {
            let what = Missing::Symbol { name: (*name).to_owned(), version: version.map(str::to_owned) };
            out.push(Gap { object: object.file, provider: Some(provider.file), what, count: missing.len() });
        }
    }
    out.extend(torch_symbols(process, object));
    out
}

/// The loader takes a symbol from any object of the process that has it: a preloaded one may, and nobody kept its exports.
fn elsewhere(process: &Process<'_>, name: &str) -> bool {
    process.objects.iter().any(|o| match o.elf.exports_symbol(name) {
        Some(has) => has,
        None => o.via == Some(Via::Preload),
    })
}

/// Torch's C++ symbols, which have no versions: any library of the process may have them. Only where torch is there
/// whole; without it the missing library is the finding.
fn torch_symbols<'a>(process: &Process<'a>, object: &Object<'a>) -> Option<Gap<'a>> {
    let symbols = object.elf.imports.get("")?;
    process.object("libc10.so")?;
    process.object("libtorch_cpu.so")?;
    // A library of the package's own may define more in those namespaces; its exports were not kept.
    let helper = |o: &&Object| {
        let apart = o.file.place.path != object.file.place.path && o.elf.exports.is_none();
        apart && o.elf.needs_torch()
    };
    let own = process.objects.iter().skip(process.inherited);
    let mut beside = own.filter(|o| o.file.place.path.as_str().contains("-packages/"));
    if beside.any(|o| helper(&o)) || object.elf.needed.iter().any(|n| is_own_helper(process, n)) {
        return None;
    }
    let has = |name: &str| process.objects.iter().any(|o| o.elf.exports_symbol(name) == Some(true));
    let missing: Vec<&String> = symbols.iter().filter(|s| !has(s)).collect();
    let first = missing.iter().find(|s| is_core(s)).or(missing.first())?;
    let provider = process.object("libc10.so").map(|o| o.file);
    let what = Missing::Symbol { name: (**first).clone(), version: None };
    Some(Gap { object: object.file, provider, what, count: missing.len() })
}

/// Whether a needed name leads to a library of a Python package that is neither torch's nor NVIDIA's.
fn is_own_helper(process: &Process<'_>, name: &str) -> bool {
    process.object(name).is_some_and(|o| {
        let path = o.file.place.path.as_str();
        path.contains("-packages/")
            && !path.contains("-packages/torch/")
            && !path.contains("-packages/nvidia/")
            && o.elf.exports.is_none()
    })
}

/// A symbol of the oldest part of torch's interface, which people search for.
fn is_core(symbol: &str) -> bool {
    symbol.starts_with("_ZN3c10")
}
