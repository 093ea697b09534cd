//! Embeds the rule pages `rules/*.md`, so that `cudalint explain` needs no files beside it.

use std::fmt::Write as _;
use std::path::Path;

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=rules");
    let root = std::env::var("CARGO_MANIFEST_DIR").map_err(std::io::Error::other)?;
    let mut names: Vec<String> = std::fs::read_dir(Path::new(&root).join("rules"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".md") && name != "README.md")
        .collect();
    names.sort();
    let mut code = String::from("pub(crate) const PAGES: &[(&str, &str)] = &[\n");
    for name in names {
        let stem = name.trim_end_matches(".md");
        let path = Path::new(&root).join("rules").join(&name);
        writeln!(code, "    ({stem:?}, include_str!({:?})),", path.display().to_string())
            .map_err(std::io::Error::other)?;
    }
    code.push_str("];\n");
    let out = std::env::var("OUT_DIR").map_err(std::io::Error::other)?;
    std::fs::write(Path::new(&out).join("pages.rs"), code)
}
