//! The image's C library is musl; the driver's libraries and NVIDIA's are built for glibc.

use super::linking::{at, says};
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::inventory::loader::Libc;
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL514", name: "musl-image" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "GPU software in a musl image, where the driver's libraries cannot be loaded",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let inventory = case.inventory;
    let meant = inventory.facts.image.config.env("NVIDIA_VISIBLE_DEVICES").is_some();
    if inventory.processes.loader.libc != Libc::Musl || !(inventory.uses_gpu() || meant) {
        return Vec::new();
    }
    let outcome = if inventory.uses_gpu() { Outcome::Breaks } else { Outcome::Holds };
    let is_loader = |f: &&FileFacts| f.place.path.file_name().starts_with("ld-musl-") && f.elf.is_some();
    let is_libc = |f: &&FileFacts| f.place.path.file_name().starts_with("libc.musl-");
    let files = &inventory.facts.files;
    let Some(musl) = files.iter().find(is_loader).or_else(|| files.iter().find(is_libc)) else {
        return Vec::new();
    };
    let message =
        "the image has musl and no glibc; libcuda and NVIDIA's libraries are built for glibc".to_owned();
    vec![
        Finding::new(ID, outcome, message, vec![at(musl, "the image's dynamic loader")])
            .level(if outcome == Outcome::Breaks { Level::Error } else { Level::Warning })
            .headline("musl image")
            .component("libc")
            .host(
                "the driver's libraries are built for glibc, and mounted where musl does not look".to_owned(),
            )
            .error(says("Error loading shared library libcuda.so.1: No such file or directory"))
            .remedy("use a base image with glibc: Debian, Ubuntu, Red Hat UBI"),
    ]
}
