//! Embeds what the program must find without files beside it: the rule pages `rules/*.md` for `cudalint explain`, and the
//! catalog `rules/catalog/*.toml` as JSON, table by table, because every start reads it and JSON is read many times faster.

use std::fmt::Write as _;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=rules");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").map_err(Error::other)?);
    let out = PathBuf::from(std::env::var("OUT_DIR").map_err(Error::other)?);
    std::fs::write(out.join("pages.rs"), pages(&root.join("rules"))?)?;
    std::fs::write(out.join("catalog.rs"), catalog(&root.join("rules/catalog"))?)
}

fn pages(dir: &Path) -> Result<String> {
    let mut code = String::from("pub(crate) const PAGES: &[(&str, &str)] = &[\n");
    for stem in stems(dir, ".md")?.iter().filter(|s| *s != "README") {
        let path = dir.join(format!("{stem}.md"));
        writeln!(code, "    ({stem:?}, include_str!({:?})),", path.display().to_string())
            .map_err(Error::other)?;
    }
    code.push_str("];\n");
    Ok(code)
}

/// `FILES` with the tables of each file, and `AS_OF`, the newest day that one of them states.
fn catalog(dir: &Path) -> Result<String> {
    let mut code = String::from("pub const FILES: &[CatalogFile] = &[\n");
    let mut as_of = String::new();
    for stem in stems(dir, ".toml")? {
        let path = dir.join(format!("{stem}.toml"));
        let table: toml::Table = std::fs::read_to_string(&path)?
            .parse()
            .map_err(|e| Error::other(format!("{}: {e}", path.display())))?;
        if let Some(date) = table.get("as_of").and_then(toml::Value::as_str) {
            as_of = as_of.max(date.to_owned());
        }
        writeln!(code, "    CatalogFile {{ name: {stem:?}, tables: &[").map_err(Error::other)?;
        for (name, rows) in table.iter().filter(|(_, value)| value.is_array()) {
            let json = serde_json::to_string(rows).map_err(Error::other)?;
            writeln!(code, "        ({name:?}, {json:?}),").map_err(Error::other)?;
        }
        code.push_str("    ] },\n");
    }
    writeln!(code, "];\nconst AS_OF: &str = {as_of:?};").map_err(Error::other)?;
    Ok(code)
}

/// Names of the files of one kind, in order, without their ending.
fn stems(dir: &Path, ending: &str) -> Result<Vec<String>> {
    let mut stems = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        stems.extend(name.strip_suffix(ending).map(str::to_owned));
    }
    stems.sort();
    Ok(stems)
}
