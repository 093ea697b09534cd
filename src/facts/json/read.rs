//! The public facts document -> [`ImageFacts`]. What a newer version wrote and this one does not know is said, never
//! guessed.

use super::{
    CodeRowJson, DeviceCodeJson, ElfJson, FACTS_SCHEMA, FactsJson, FileJson, ImageJson, LinkJson,
    PackageJson, ProblemJson, ShapeJson, file_kind_of, origin_of,
};
use crate::facts::{
    CodeImage, CodeKind, CodePlace, CodeRow, Config, Counts, CudartCode, Depth, DeviceCode, ElfFacts,
    FileFacts, ForwardCompatNote, HistoryEntry, ImageFacts, ImageIdentity, LayerIdentity, Link, Package,
    PackageFact, Place, Problem, Shape,
};
use crate::names::{Digest, ImagePath, LayerIndex, Platform};
use crate::version::{Arch, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

/// Reads a document back. `Err` says in words what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<ImageFacts, String> {
    #[derive(Deserialize)]
    struct Schema {
        facts_schema: Option<u32>,
    }
    let schema: Schema = serde_json::from_slice(bytes).map_err(|e| format!("no valid JSON: {e}"))?;
    match schema.facts_schema {
        Some(FACTS_SCHEMA) => {}
        Some(other) => return Err(format!("facts schema {other}; this version reads {FACTS_SCHEMA}")),
        None => return Err("no facts document: `facts_schema` is missing".to_owned()),
    }
    let json: FactsJson = serde_json::from_slice(bytes).map_err(|e| format!("no facts document: {e}"))?;
    let timing = json.timing.clone().unwrap_or_default();
    let counts = Counts {
        bytes_decompressed: timing.bytes_decompressed,
        files: timing.files,
        elf_files: timing.elf_files,
        spills: timing.spills,
        by_table: timing.layers_by_table,
    };
    let mut facts = ImageFacts {
        complete: json.complete,
        depth: match json.depth.as_str() {
            "full" => Depth::Full,
            "libraries" => Depth::Libraries,
            other => return Err(format!("depth `{other}`; this version knows full and libraries")),
        },
        files: json.files.into_iter().map(file_of).collect::<Result<_, _>>()?,
        links: json.links.into_iter().map(link_of).collect(),
        packages: json.packages.into_iter().map(package_of).collect::<Result<_, _>>()?,
        problems: json.problems.into_iter().map(problem_of).collect(),
        image: image_of(json.image)?,
        counts,
    };
    facts.files.sort_by(|a, b| a.place.path.cmp(&b.place.path));
    Ok(facts)
}

fn place_from(path: &str, layer: u32) -> Place {
    Place { layer: LayerIndex(layer), path: ImagePath::new(path) }
}

fn file_of(json: FileJson) -> Result<FileFacts, String> {
    let unknown = |what: &str| format!("`{}`: {what} of a newer version", json.path);
    Ok(FileFacts {
        place: place_from(&json.path, json.layer),
        size: json.size,
        kind: file_kind_of(&json.kind).ok_or_else(|| unknown("a kind"))?,
        elf: json.elf.map(elf_of),
        device_code: match json.device_code {
            Some(code) => {
                let path = json.path.clone();
                Some(
                    device_code_of(code)
                        .ok_or_else(|| format!("`{path}`: device code of a newer version"))?,
                )
            }
            None => None,
        },
        text: json.text,
        sha256: json.sha256.and_then(|hex| Digest::parse(&format!("sha256:{hex}"))),
    })
}

fn link_of(json: LinkJson) -> Link {
    Link { place: place_from(&json.path, json.layer), target: json.target, hard: json.kind == "hardlink" }
}

fn package_of(json: PackageJson) -> Result<Package, String> {
    let origin =
        origin_of(&json.origin).ok_or_else(|| format!("package origin `{}` is not known", json.origin))?;
    let fact = PackageFact { origin, name: json.name, version: json.version, requires: json.requires };
    Ok(Package { place: place_from(&json.path, json.layer), fact })
}

fn problem_of(json: ProblemJson) -> Problem {
    Problem { place: place_from(&json.path, json.layer), detail: json.detail }
}

fn image_of(json: ImageJson) -> Result<ImageIdentity, String> {
    let digest = |text: Option<String>| match text {
        Some(text) => Digest::parse(&text).map(Some).ok_or_else(|| format!("`{text}` is no digest")),
        None => Ok(None),
    };
    let layers = json.layers.into_iter().map(|l| {
        Ok(LayerIdentity {
            digest: digest(l.digest)?,
            diff_id: digest(l.diff_id)?,
            media_type: l.media_type,
            size: l.size,
            created_by: l.created_by,
        })
    });
    Ok(ImageIdentity {
        reference: json.reference,
        // Not in the document, which says the same of an image wherever it was read; it follows from the reference.
        repository: String::new(),
        digest: digest(json.digest)?,
        platform: Platform::parse(&json.platform).unwrap_or_default(),
        config: Config {
            env: json.config.env.into_iter().collect(),
            entrypoint: json.config.entrypoint,
            cmd: json.config.cmd,
            user: json.config.user,
            labels: json.config.labels,
        },
        layers: layers.collect::<Result<_, String>>()?,
        history: json
            .history
            .into_iter()
            .map(|h| HistoryEntry { created_by: h.created_by, empty: h.empty_layer })
            .collect(),
    })
}

pub fn elf_of(json: ElfJson) -> ElfFacts {
    ElfFacts {
        bits: json.bits,
        machine: json.machine,
        kind: json.kind,
        interpreter: json.interpreter,
        soname: json.soname,
        needed: json.needed,
        rpath: json.rpath,
        runpath: json.runpath,
        bind_now: json.bind_now,
        versions_needed: json.versions_needed,
        versions_provided: json.versions_provided,
        build_id: json.build_id,
        forward_compat: json.forward_compat.map(|n| ForwardCompatNote { cuda: n.cuda, drivers: n.drivers }),
        cudart: json.cudart.map(|c| CudartCode { version: c.version }),
        driver_api: json.driver_api,
        dlopens: json.dlopens,
        imports: json.imports,
        exports: json.exports.map(|text| hashes_of(&text)),
        version_numbers: json.version_numbers,
        version_texts: json.version_texts,
    }
}

fn hashes_of(text: &str) -> Vec<u32> {
    let bytes = BASE64.decode(text).unwrap_or_default();
    let words = bytes.chunks_exact(4).filter_map(|c| c.try_into().ok());
    words.map(u32::from_le_bytes).collect()
}

fn place_of(name: &str) -> Option<CodePlace> {
    match name {
        "section" => Some(CodePlace::Section),
        "embedded" => Some(CodePlace::Embedded),
        "cubin" => Some(CodePlace::Cubin),
        _ => None,
    }
}

fn row_of(row: CodeRowJson) -> Option<CodeRow> {
    let ptx_isa = match row.ptx_isa {
        Some(isa) => Some(isa.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))?),
        None => None,
    };
    let kind = match row.kind.as_str() {
        "sass" => CodeKind::Sass,
        "ptx" => CodeKind::Ptx,
        "ltoir" => CodeKind::LtoIr,
        "tileir" => CodeKind::TileIr,
        other => CodeKind::Other(other.strip_prefix("kind-")?.parse().ok()?),
    };
    Some(CodeRow {
        place: place_of(&row.place)?,
        section: row.section,
        image: CodeImage { kind, arch: Arch::parse(&row.arch)?, ptx_isa },
        toolkit: row.toolkit.and_then(|t| Version::parse(&t)),
        count: row.count,
        bytes: row.bytes,
    })
}

/// `None` where a name in it is not one this version writes.
pub fn device_code_of(json: DeviceCodeJson) -> Option<DeviceCode> {
    let shape = |s: ShapeJson| {
        let images: Option<Vec<CodeImage>> = s.images.iter().map(|i| image_of_text(i)).collect();
        Some(Shape { place: place_of(&s.place)?, section: s.section, images: images?, count: s.count })
    };
    Some(DeviceCode {
        containers: json.containers,
        embedded_containers: json.embedded_containers,
        bytes: json.bytes,
        rows: json.entries.into_iter().map(row_of).collect::<Option<_>>()?,
        shapes: json.shapes.into_iter().map(shape).collect::<Option<_>>()?,
    })
}

fn image_of_text(text: &str) -> Option<CodeImage> {
    let mut words = text.split(' ');
    let name = words.next()?;
    let arch = Arch::parse(name)?;
    let (kind, ptx_isa) = match (name.split('_').next()?, words.next(), words.next()) {
        ("compute", Some("ptx"), Some(isa)) => {
            let (major, minor) = isa.split_once('.')?;
            (CodeKind::Ptx, Some((major.parse().ok()?, minor.parse().ok()?)))
        }
        ("compute", Some("tileir"), None) => (CodeKind::TileIr, None),
        ("sm", None, None) => (CodeKind::Sass, None),
        ("sm", Some(other), None) => (CodeKind::Other(other.strip_prefix("kind-")?.parse().ok()?), None),
        ("lto", None, None) => (CodeKind::LtoIr, None),
        _ => return None,
    };
    Some(CodeImage { kind, arch, ptx_isa })
}
