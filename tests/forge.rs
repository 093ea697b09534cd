//! The committed images are what their recipes give, and the forge makes what it says.
//!
//! `FORGE=overwrite cargo test --test forge` writes the layouts below `fixtures/images` again.

#![allow(clippy::unwrap_used, reason = "a test that cannot prepare itself fails")]

mod support;

use cudalint::facts::FileKind;
use goblin::elf::Elf;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use support::forge::{self, Layout};
use support::stub::{Stub, stub};

/// Recipes whose layouts are in the repository.
const COMMITTED: [&str; 2] = ["demo", "demo-serve"];

#[test]
fn committed_images_are_what_their_recipes_give() {
    for name in COMMITTED {
        let dir = support::root().join("fixtures/images").join(name);
        let wanted = forge::layout(&[forge::named(name)]);
        if std::env::var("FORGE").is_ok_and(|v| v == "overwrite") {
            if dir.exists() {
                std::fs::remove_dir_all(&dir).unwrap();
            }
            forge::write(&wanted, &dir);
        }
        let found = read(&dir);
        let names = |layout: &Layout| layout.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&wanted), "{name}: FORGE=overwrite writes it again");
        for (path, bytes) in &wanted {
            assert!(found[path] == *bytes, "{name}/{path}: FORGE=overwrite writes it again");
        }
        let total: usize = found.values().map(Vec::len).sum();
        assert!(total < 100 << 10, "{name}: {total} bytes");
    }
}

#[test]
fn the_same_recipe_gives_the_same_bytes_and_compression_changes_only_the_blobs() {
    let mut recipe = forge::named("demo");
    assert_eq!(forge::layout(&[recipe.clone()]), forge::layout(&[recipe.clone()]));
    let plain = diff_ids(&forge::layout(&[recipe.clone()]));
    for compression in [forge::Compression::Gzip, forge::Compression::Zstd] {
        recipe.layer.iter_mut().for_each(|l| l.compression = compression);
        assert_eq!(diff_ids(&forge::layout(&[recipe.clone()])), plain, "{compression:?}");
    }
}

#[test]
fn a_layer_is_the_tar_that_the_recipe_describes() {
    let recipe = forge::recipe(
        r#"
        [[layer]]
        created_by = "COPY"
        compression = "zstd"
        files = [
          { dir = "/app" },
          { path = "/app/a", text = "x", mode = 0o755 },
          { path = "/app/b", symlink = "a" },
          { path = "/app/c", hardlink = "/app/a" },
          { whiteout = "/etc/motd" },
          { opaque = "/var/cache" },
        ]
        [[layer]]
        created_by = "ENV"
        empty = true
        "#,
    );
    let layout = forge::layout(&[recipe]);
    let manifest = json(&layout, &entry_digest(&layout));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1, "an empty instruction makes no layer");
    let blob = &layout[&format!("blobs/{}", digest(&manifest["layers"][0]).replace(':', "/"))];
    let mut plain = Vec::new();
    zstd::Decoder::new(blob.as_slice()).unwrap().read_to_end(&mut plain).unwrap();
    let mut archive = tar::Archive::new(plain.as_slice());
    let lines: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|e| {
            let e = e.unwrap();
            let target = e.link_name().unwrap().map_or_else(String::new, |t| format!(" -> {}", t.display()));
            format!("{:o} {}{target}", e.header().mode().unwrap(), e.path().unwrap().display())
        })
        .collect();
    let wanted = [
        "755 app/",
        "755 app/a",
        "777 app/b -> a",
        "644 app/c -> app/a",
        "644 etc/.wh.motd",
        "644 var/cache/.wh..wh..opq",
    ];
    assert_eq!(lines, wanted);
    assert_eq!(json(&layout, &digest(&manifest["config"]))["history"].as_array().unwrap().len(), 2);
}

#[test]
fn a_stub_is_a_shared_object_to_others() {
    let bytes = stub(&Stub {
        soname: Some("libcuda.so.1".to_owned()),
        needed: vec!["libc.so.6".to_owned(), "libm.so.6".to_owned()],
        runpath: Some("$ORIGIN".to_owned()),
        machine: "arm64".to_owned(),
        versions: vec!["GLIBC_2.34".to_owned(), "GLIBC_2.36".to_owned()],
        compat_note: Some(r#"{"CUDA version": "12.9", "driver": [535, 550]}"#.to_owned()),
        ..Stub::default()
    });
    let elf = Elf::parse(&bytes).unwrap();
    assert_eq!((elf.header.e_machine, elf.header.e_type), (183, 3));
    assert_eq!(elf.soname, Some("libcuda.so.1"));
    assert_eq!(elf.libraries, ["libc.so.6", "libm.so.6"]);
    assert_eq!(elf.runpaths, ["$ORIGIN"]);
    let versions: Vec<&str> = elf
        .verdef
        .iter()
        .flat_map(|v| v.iter().flat_map(|d| d.iter().collect::<Vec<_>>()))
        .filter_map(|a| elf.dynstrtab.get_at(a.vda_name))
        .collect();
    assert_eq!(versions, ["libcuda.so.1", "GLIBC_2.34", "GLIBC_2.36"]);
    let sections: Vec<_> =
        elf.section_headers.iter().filter_map(|s| elf.shdr_strtab.get_at(s.sh_name)).collect();
    let wanted = [
        "",
        ".hash",
        ".dynsym",
        ".dynstr",
        ".gnu.version_d",
        ".note.cuda.fwd_compatibility",
        ".dynamic",
        ".shstrtab",
    ];
    assert_eq!(sections, wanted);
}

#[test]
fn cudalint_reads_a_forged_image() {
    let dir = forge::temporary(&forge::recipe(
        r#"
        platform = "linux/arm64"
        env = ["CUDA_VERSION=12.9"]
        [[layer]]
        created_by = "COPY compat"
        compression = "gzip"
        files = [
          { path = "/usr/local/cuda-12.9/compat/libcuda.so.575.57.08", elf = { soname = "libcuda.so.1", machine = "arm64", compat_note = '{"CUDA version": "12.9", "driver": [535, 550]}' } },
        ]
        "#,
    ));
    let facts = scan(&format!("oci:{}", dir.path().display()));
    let file = &facts.files[0];
    let elf = file.elf.as_ref().unwrap();
    assert_eq!(
        (file.kind, elf.machine.as_str(), elf.soname.as_deref()),
        (FileKind::Elf, "arm64", Some("libcuda.so.1"))
    );
    assert_eq!(elf.forward_compat.as_ref().unwrap().drivers, Some(vec![535, 550]));
}

/// `cudalint scan` of an image, through the program.
fn scan(image: &str) -> cudalint::facts::ImageFacts {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cudalint"))
        .args(["scan", image, "--no-cache", "--no-timing", "--format", "json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cudalint::facts::json::read(&output.stdout).unwrap()
}

fn read(dir: &Path) -> Layout {
    let mut out = BTreeMap::new();
    let mut open: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.exists() {
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            out.insert(name, std::fs::read(&path).unwrap());
        }
    }
    out
}

fn json(layout: &Layout, digest: &str) -> serde_json::Value {
    serde_json::from_slice(&layout[&format!("blobs/{}", digest.replace(':', "/"))]).unwrap()
}

fn digest(descriptor: &serde_json::Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}

fn entry_digest(layout: &Layout) -> String {
    let index: serde_json::Value = serde_json::from_slice(&layout["index.json"]).unwrap();
    digest(&index["manifests"][0])
}

fn diff_ids(layout: &Layout) -> Vec<String> {
    let config = json(layout, &digest(&json(layout, &entry_digest(layout))["config"]));
    config["rootfs"]["diff_ids"].as_array().unwrap().iter().map(|d| d.as_str().unwrap().to_owned()).collect()
}
