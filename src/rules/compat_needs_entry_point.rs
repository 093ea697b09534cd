//! Forward compatibility of NVIDIA's framework images is the work of their entry point, which is easily replaced.

use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::inventory::compat::{CompatLibrary, ENTRY_POINT, Reach};
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL513", name: "compat-needs-entry-point" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "only NVIDIA's entry point switches the compat libraries of the image on",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let of = |reach: Reach| case.inventory.compat.iter().find(|c| c.reach == reach);
    let (kept, lost) = (of(Reach::EntryPoint), of(Reach::LostEntryPoint));
    let evidence = |library: &CompatLibrary| {
        let place = library.place.clone();
        let detail =
            "out of reach of the container toolkit, which looks into /usr/local/cuda/compat".to_owned();
        let mut lines = vec![Evidence { place, detail }];
        let entry = case.inventory.facts.image.config.entrypoint.join(" ");
        let entry =
            if entry.is_empty() { "no entry point".to_owned() } else { format!("entry point {entry}") };
        lines.extend(about_image(case, entry));
        lines
    };
    match (kept, lost) {
        (_, Some(library)) => {
            let message = "the compat libraries of the image are lost: only NVIDIA's entry point switches them on, and the image has another one";
            let finding = Finding::new(ID, Outcome::Holds, message.to_owned(), evidence(library))
                .level(Level::Warning)
                .headline("forward compatibility is lost")
                .component("libcuda")
                .remedy(format!("begin ENTRYPOINT with /opt/nvidia/{ENTRY_POINT}"));
            vec![finding]
        }
        (Some(library), None) => {
            let message = "forward compatibility works through the entry point only: `command:` of Kubernetes and `--entrypoint` switch it off";
            let finding = Finding::new(ID, Outcome::Holds, message.to_owned(), evidence(library))
                .level(Level::Note)
                .headline("forward compatibility by the entry point")
                .component("libcuda")
                .remedy(format!(
                    "override `args:` only, or begin the command with /opt/nvidia/{ENTRY_POINT}"
                ));
            vec![finding]
        }
        (None, None) => Vec::new(),
    }
}
