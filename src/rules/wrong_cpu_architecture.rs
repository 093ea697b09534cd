//! The image, or the CUDA part of it, is built for another CPU than the host has.

use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::report::{Evidence, Finding, Outcome, RuleId, RuntimeError};

const ID: RuleId = RuleId { code: "CUL110", name: "wrong-cpu-architecture" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "image, CUDA libraries and host are not all for the same CPU architecture",
    reads: Reads::GPU.and(Reads::HOST),
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    out.extend(libraries_against_image(case));
    out.extend(image_against_host(case));
    out
}

/// CUDA files by the machine in their ELF header.
fn cuda_files<'a>(case: &Case<'a>) -> impl Iterator<Item = (&'a FileFacts, &'a str)> {
    let facts = case.inventory.facts;
    let paths: Vec<_> = (case.inventory.runtimes.iter().map(|r| &r.place.path))
        .chain(case.inventory.code.iter().flat_map(|g| g.files.iter().map(|f| &f.place.path)))
        .collect();
    let is_cuda = move |f: &&FileFacts| paths.contains(&&f.place.path);
    facts.files.iter().filter(is_cuda).filter_map(|f| Some((f, f.elf.as_ref()?.machine.as_str())))
}

fn libraries_against_image(case: &Case<'_>) -> Option<Finding> {
    let platform = &case.inventory.facts.image.platform;
    if platform.architecture.is_empty() {
        return None;
    }
    let foreign: Vec<_> = cuda_files(case).filter(|(_, m)| *m != platform.architecture).collect();
    // Toolkits carry libraries for cross-compiling: only where none fits is the image broken.
    let (first, machine) = foreign.first().filter(|_| foreign.len() == cuda_files(case).count())?;
    let message = format!("the image is for {platform}, its CUDA libraries are for {machine}");
    let evidence = vec![Evidence { place: first.place.clone(), detail: format!("ELF machine {machine}") }];
    let name = first.place.path.file_name();
    let text = format!("{name}: cannot open shared object file: No such file or directory");
    Some(
        Finding::new(ID, Outcome::Breaks, message, evidence)
            .headline("CUDA libraries for another CPU")
            .error(Some(RuntimeError { code: None, name: None, text }))
            .remedy(format!("install the packages for {}", platform.architecture)),
    )
}

fn image_against_host(case: &Case<'_>) -> Option<Finding> {
    // What the target states, else what hosts of the GPU are.
    let (host, hosts) = match (&case.host.arch, case.gpu) {
        (Some(arch), _) => (arch.as_str(), "this host is".to_owned()),
        (None, gpu) => {
            let gpu = gpu?;
            (gpu.host_arch?, format!("hosts with {} are", gpu.describe()))
        }
    };
    let platform = &case.inventory.facts.image.platform;
    let (image, evidence) = if platform.architecture.is_empty() {
        let (file, machine) = cuda_files(case).next().filter(|_| cuda_files(case).all(|(_, m)| m != host))?;
        let detail = format!("ELF machine {machine}");
        (machine.to_owned(), vec![Evidence { place: file.place.clone(), detail }])
    } else {
        let detail = format!("image platform {platform}");
        (platform.architecture.clone(), about_image(case, detail))
    };
    if image == host {
        let message = format!("the image is for {host}, as {hosts}");
        return Some(Finding::new(ID, Outcome::Holds, message, evidence));
    }
    let message = format!("the image is for {image}; {hosts} {host}");
    let error = RuntimeError { code: None, name: None, text: "exec format error".to_owned() };
    Some(
        Finding::new(ID, Outcome::Breaks, message, evidence)
            .headline(format!("image for {image}, host is {host}"))
            .error(Some(error))
            .remedy(format!("build or pull the image for linux/{host} (--platform linux/{host})")),
    )
}
