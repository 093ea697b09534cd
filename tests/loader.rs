//! The loader's rules, one by one: small trees of libraries, and who gets what from where. What ld.so(8) and musl's
//! manual say; real stacks are compared in `stacks.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use cudalint::facts::{ElfFacts, FileFacts, FileKind, ImageFacts, Link, Place};
use cudalint::inventory::loader::{Loader, Process, Status, Via};
use cudalint::names::{ImagePath, LayerIndex};

#[derive(Default)]
struct Tree {
    facts: ImageFacts,
}

fn list(text: &str) -> Vec<String> {
    text.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

fn place(path: &str) -> Place {
    Place { layer: LayerIndex(0), path: ImagePath::new(path) }
}

impl Tree {
    fn glibc() -> Tree {
        let mut tree = Tree::default();
        tree.file("/usr/lib/x86_64-linux-gnu/libc.so.6", "", "", "");
        tree
    }

    fn push(&mut self, path: &str, elf: Option<ElfFacts>, text: Option<&str>) {
        let kind = if elf.is_some() { FileKind::Elf } else { FileKind::Text };
        let text = text.map(str::to_owned);
        let file =
            FileFacts { place: place(path), size: 1, kind, elf, device_code: None, text, sha256: None };
        self.facts.files.push(file);
        self.facts.files.sort_by(|a, b| a.place.path.cmp(&b.place.path));
    }

    /// A library: what it needs, its DT_RPATH, its DT_RUNPATH (elements separated by `:`).
    fn file(&mut self, path: &str, needed: &str, rpath: &str, runpath: &str) -> &mut ElfFacts {
        let split = |text: &str| match text {
            "" => Vec::new(),
            text => text.split(':').map(str::to_owned).collect(),
        };
        let elf = ElfFacts {
            bits: 64,
            machine: "amd64".to_owned(),
            kind: "DYN".to_owned(),
            soname: Some(path.rsplit('/').next().unwrap().to_owned()),
            needed: list(needed),
            rpath: split(rpath),
            runpath: split(runpath),
            ..ElfFacts::default()
        };
        self.push(path, Some(elf), None);
        let file = self.facts.files.iter_mut().find(|f| f.place.path.as_str() == path).unwrap();
        file.elf.as_mut().unwrap()
    }

    fn program(&mut self, path: &str, needed: &str, rpath: &str, runpath: &str) {
        let elf = self.file(path, needed, rpath, runpath);
        elf.soname = None;
        elf.interpreter = Some("/lib64/ld-linux-x86-64.so.2".to_owned());
    }

    fn link(&mut self, path: &str, target: &str) {
        self.facts.links.push(Link { place: place(path), target: target.to_owned(), hard: false });
    }

    fn env(&mut self, name: &str, value: &str) {
        self.facts.image.config.env.push((name.to_owned(), value.to_owned()));
    }

    /// What the program at `path`, or a library opened alone, loads for `name`: where from, and how it was found.
    fn load(&self, path: &str, name: &str) -> (Option<String>, Option<Via>, Status) {
        let loader = Loader::of(&self.facts);
        let file = loader.paths.file(path).unwrap();
        let process: Process = if file.elf.as_ref().unwrap().interpreter.is_some() {
            loader.start(Some(file))
        } else {
            let mut process = loader.start(None);
            loader.open(&mut process, file, None).unwrap();
            process
        };
        let load = process.objects.iter().flat_map(|o| &o.loads).find(|l| l.name == name).unwrap();
        (load.file.map(|f| f.place.path.to_string()), load.via, load.status)
    }
}

fn found(path: &str, via: Via) -> (Option<String>, Option<Via>, Status) {
    (Some(path.to_owned()), Some(via), Status::Found)
}

#[test]
fn rpath_comes_before_the_environment_and_runpath_after_it() {
    let mut tree = Tree::glibc();
    tree.env("LD_LIBRARY_PATH", "/env");
    tree.file("/env/libx.so.1", "", "", "");
    tree.file("/own/libx.so.1", "", "", "");
    tree.file("/a/librpath.so", "libx.so.1", "/own", "");
    tree.file("/a/librunpath.so", "libx.so.1", "", "/own");
    tree.file("/a/libboth.so", "libx.so.1", "/own", "/nowhere");
    assert_eq!(tree.load("/a/librpath.so", "libx.so.1"), found("/own/libx.so.1", Via::Rpath));
    assert_eq!(tree.load("/a/librunpath.so", "libx.so.1"), found("/env/libx.so.1", Via::LibraryPath));
    let both = tree.load("/a/libboth.so", "libx.so.1");
    assert_eq!(both, found("/env/libx.so.1", Via::LibraryPath), "DT_RPATH is ignored beside DT_RUNPATH");
}

#[test]
fn rpath_is_inherited_and_runpath_is_not() {
    let mut tree = Tree::glibc();
    tree.file("/own/libdeep.so.1", "", "", "");
    tree.file("/own/libmid.so.1", "libdeep.so.1", "", "");
    tree.program("/bin/by-rpath", "libmid.so.1", "/own", "");
    tree.program("/bin/by-runpath", "libmid.so.1", "", "/own");
    assert_eq!(tree.load("/bin/by-rpath", "libdeep.so.1"), found("/own/libdeep.so.1", Via::Rpath));
    assert_eq!(tree.load("/bin/by-runpath", "libdeep.so.1").2, Status::Missing);
}

#[test]
fn a_library_with_a_runpath_of_its_own_inherits_nothing() {
    let mut tree = Tree::glibc();
    tree.file("/own/libdeep.so.1", "", "", "");
    tree.file("/own/libmid.so.1", "libdeep.so.1", "", "/nowhere");
    tree.program("/bin/program", "libmid.so.1", "/own", "");
    assert_eq!(tree.load("/bin/program", "libdeep.so.1").2, Status::Missing);
}

#[test]
fn origin_is_where_the_object_was_opened_and_both_spellings_mean_it() {
    let mut tree = Tree::glibc();
    tree.file("/opt/pkg/lib/libx.so.1", "", "", "");
    tree.file("/opt/pkg/bin/liba.so", "libx.so.1", "", "$ORIGIN/../lib");
    tree.file("/opt/pkg/bin/libb.so", "libx.so.1", "", "${ORIGIN}/../lib");
    tree.file("/opt/pkg/bin/libc.so", "libx.so.1", "", ":relative");
    assert_eq!(tree.load("/opt/pkg/bin/liba.so", "libx.so.1"), found("/opt/pkg/lib/libx.so.1", Via::Runpath));
    assert_eq!(tree.load("/opt/pkg/bin/libb.so", "libx.so.1"), found("/opt/pkg/lib/libx.so.1", Via::Runpath));
    let unknown_directory = tree.load("/opt/pkg/bin/libc.so", "libx.so.1");
    assert_eq!(unknown_directory.2, Status::Missing, "nobody knows the working directory");
}

#[test]
fn the_cache_comes_before_default_directories_and_configured_ones_are_searched_after_ldconfig() {
    let mut tree = Tree::glibc();
    tree.file("/usr/lib/x86_64-linux-gnu/libx.so.1", "", "", "");
    tree.file("/opt/cuda/lib64/libx.so.1", "", "", "");
    tree.file("/opt/cuda/lib64/libfull.so.1.2.3", "", "", "").soname = Some("libfull.so.1".to_owned());
    tree.file("/a/liba.so", "libx.so.1 libfull.so.1", "", "");
    assert_eq!(
        tree.load("/a/liba.so", "libx.so.1"),
        found("/usr/lib/x86_64-linux-gnu/libx.so.1", Via::Default)
    );
    tree.push("/etc/ld.so.conf", None, Some("# first\ninclude /etc/ld.so.conf.d/*.conf\n"));
    tree.push("/etc/ld.so.conf.d/cuda.conf", None, Some("/opt/cuda/lib64\n"));
    assert_eq!(tree.load("/a/liba.so", "libx.so.1"), found("/opt/cuda/lib64/libx.so.1", Via::Conf));
    let without_link = tree.load("/a/liba.so", "libfull.so.1");
    assert_eq!(
        without_link,
        found("/opt/cuda/lib64/libfull.so.1.2.3", Via::Conf),
        "ldconfig makes the link at start"
    );
    tree.push("/etc/ld.so.cache", None, Some("libx.so.1 => /lib/x86_64-linux-gnu/libx.so.1\n"));
    tree.link("/lib", "usr/lib");
    assert_eq!(
        tree.load("/a/liba.so", "libx.so.1"),
        found("/usr/lib/x86_64-linux-gnu/libx.so.1", Via::Cache)
    );
}

#[test]
fn what_is_loaded_already_is_not_searched_for_again() {
    let mut tree = Tree::glibc();
    tree.file("/one/libx.so.1", "", "", "");
    tree.file("/two/libx.so.1", "", "", "");
    tree.file("/two/libb.so.1", "libx.so.1", "/two", "");
    tree.program("/bin/program", "libx.so.1 libb.so.1", "/one:/two", "");
    let loader = Loader::of(&tree.facts);
    let process = loader.start(loader.paths.file("/bin/program"));
    let all = process.objects.iter().flat_map(|o| &o.loads).filter(|l| l.name == "libx.so.1");
    let files: Vec<String> = all.map(|l| l.file.unwrap().place.path.to_string()).collect();
    assert_eq!(files, ["/one/libx.so.1", "/one/libx.so.1"]);
}

#[test]
fn ld_preload_is_loaded_first() {
    let mut tree = Tree::glibc();
    tree.env("LD_PRELOAD", "/opt/libx.so.1");
    tree.file("/opt/libx.so.1", "", "", "");
    tree.file("/own/libx.so.1", "", "", "");
    tree.program("/bin/program", "libx.so.1", "/own", "");
    assert_eq!(tree.load("/bin/program", "libx.so.1"), found("/opt/libx.so.1", Via::Preload));
}

#[test]
fn libraries_for_another_machine_are_passed_over() {
    let mut tree = Tree::glibc();
    tree.env("LD_LIBRARY_PATH", "/arm:/amd");
    tree.file("/arm/libx.so.1", "", "", "").machine = "arm64".to_owned();
    tree.file("/a/liba.so", "libx.so.1", "", "");
    assert_eq!(tree.load("/a/liba.so", "libx.so.1").2, Status::Incompatible);
    tree.file("/amd/libx.so.1", "", "", "");
    assert_eq!(tree.load("/a/liba.so", "libx.so.1"), found("/amd/libx.so.1", Via::LibraryPath));
}

#[test]
fn links_are_followed_inside_the_root_and_driver_libraries_come_from_the_host() {
    let mut tree = Tree::glibc();
    tree.file("/usr/local/cuda-12.4/targets/x86_64-linux/lib/libcudart.so.12.4.127", "", "", "");
    tree.link("/usr/local/cuda", "/etc/alternatives/cuda");
    tree.link("/etc/alternatives/cuda", "/usr/local/cuda-12.4");
    tree.link("/usr/local/cuda-12.4/lib64", "targets/x86_64-linux/lib");
    tree.link("/usr/local/cuda-12.4/targets/x86_64-linux/lib/libcudart.so.12", "libcudart.so.12.4.127");
    tree.env("LD_LIBRARY_PATH", "/usr/local/cuda/lib64:../../../../etc");
    tree.file("/a/liba.so", "libcudart.so.12 libcuda.so.1 libnvidia-ml.so.1", "", "");
    let real = "/usr/local/cuda-12.4/targets/x86_64-linux/lib/libcudart.so.12.4.127";
    assert_eq!(tree.load("/a/liba.so", "libcudart.so.12"), found(real, Via::LibraryPath));
    assert_eq!(tree.load("/a/liba.so", "libcuda.so.1").2, Status::Injected);
    assert_eq!(tree.load("/a/liba.so", "libnvidia-ml.so.1").2, Status::Injected);
}

#[test]
fn musl_takes_the_environment_first_and_both_search_paths_as_one() {
    let mut tree = Tree::default();
    tree.file("/lib/ld-musl-x86_64.so.1", "", "", "");
    tree.env("LD_LIBRARY_PATH", "/env");
    tree.file("/own/libdeep.so.1", "", "", "");
    tree.file("/own/libmid.so.1", "libdeep.so.1", "", "");
    tree.program("/bin/program", "libmid.so.1", "", "/own");
    assert_eq!(tree.load("/bin/program", "libdeep.so.1"), found("/own/libdeep.so.1", Via::Runpath));
    tree.file("/env/libdeep.so.1", "", "", "");
    assert_eq!(tree.load("/bin/program", "libdeep.so.1"), found("/env/libdeep.so.1", Via::LibraryPath));
    tree.file("/usr/local/lib/libz.so.1", "", "", "");
    tree.file("/a/liba.so", "libz.so.1", "", "");
    assert_eq!(tree.load("/a/liba.so", "libz.so.1"), found("/usr/local/lib/libz.so.1", Via::Default));
}

#[test]
fn libraries_that_need_each_other_end() {
    let mut tree = Tree::glibc();
    tree.file("/own/liba.so", "libb.so", "/own", "");
    tree.file("/own/libb.so", "liba.so libb.so", "/own", "");
    tree.link("/loop", "/loop");
    tree.env("LD_LIBRARY_PATH", "/loop");
    assert_eq!(tree.load("/own/liba.so", "libb.so"), found("/own/libb.so", Via::Rpath));
}

#[test]
fn origin_keeps_the_links_it_was_reached_by() {
    let mut tree = Tree::glibc();
    tree.link("/opt/link", "/real/x/lib");
    tree.file("/real/x/lib/libmid.so.1", "libdeep.so.1", "", "$ORIGIN/../sub");
    tree.file("/real/x/sub/libdeep.so.1", "", "", "");
    tree.file("/opt/sub/libdeep.so.1", "", "", "");
    tree.program("/bin/program", "libmid.so.1", "", "/opt/link");
    let real = tree.load("/bin/program", "libdeep.so.1");
    assert_eq!(
        real,
        found("/real/x/sub/libdeep.so.1", Via::Runpath),
        "`..` is taken behind the link, as the kernel does"
    );
}

#[test]
fn words_are_whole_and_empty_elements_are_no_directory() {
    let mut tree = Tree::glibc();
    tree.file("/libx.so.1", "", "", "");
    tree.file("/a/AL/libx.so.1", "", "", "");
    tree.file("/two/libx.so.1", "", "", "");
    tree.file("/a/liba.so", "libx.so.1", "", ":$ORIGINAL");
    tree.file("/a/libb.so", "libx.so.1", "", "//two/");
    assert_eq!(tree.load("/a/liba.so", "libx.so.1").2, Status::Missing);
    assert_eq!(tree.load("/a/libb.so", "libx.so.1"), found("/two/libx.so.1", Via::Runpath));
}

#[test]
fn the_environment_may_name_the_program_s_directory_and_the_library_directory() {
    let mut tree = Tree::glibc();
    tree.env("LD_LIBRARY_PATH", "$ORIGIN/../lib");
    tree.env("LD_PRELOAD", "/usr/$LIB/libshim.so");
    tree.file("/opt/lib/libx.so.1", "", "", "");
    tree.file("/usr/lib/x86_64-linux-gnu/libshim.so", "", "", "");
    tree.program("/opt/bin/program", "libx.so.1 libshim.so", "", "");
    assert_eq!(tree.load("/opt/bin/program", "libx.so.1"), found("/opt/lib/libx.so.1", Via::LibraryPath));
    let shim = tree.load("/opt/bin/program", "libshim.so");
    assert_eq!(shim, found("/usr/lib/x86_64-linux-gnu/libshim.so", Via::Preload));
}

#[test]
fn musl_knows_a_library_by_the_name_it_was_found_under() {
    let mut tree = Tree::default();
    tree.file("/lib/ld-musl-x86_64.so.1", "", "", "");
    tree.file("/usr/lib/libx.so", "", "", "").soname = Some("libdeep.so.1".to_owned());
    tree.program("/bin/program", "libx.so libdeep.so.1", "", "");
    assert_eq!(tree.load("/bin/program", "libdeep.so.1").2, Status::Missing);
}

#[test]
fn a_few_kilobytes_cannot_ask_for_billions_of_lookups() {
    let mut tree = Tree::glibc();
    let names: Vec<String> = (0..3000).map(|n| format!("lib{n}.so")).collect();
    let dirs: Vec<String> = (0..3000).map(|n| format!("/d{n}")).collect();
    tree.program("/bin/program", &names.join(" "), &dirs.join(":"), "");
    let loader = Loader::of(&tree.facts);
    let process = loader.start(loader.paths.file("/bin/program"));
    assert!(loader.gave_up() && process.objects.len() == 1);
}
