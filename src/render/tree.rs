//! Processes -> who loads what from where: `cudalint inspect --tree`.

use super::style::{Style, safe};
use crate::facts::FileFacts;
use crate::inventory::Inventory;
use crate::inventory::gpu_code::GroupRole;
use crate::inventory::loader::{Load, Process, Status, Via};
use crate::inventory::loading::Group;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The tree of one file; of system libraries its direct needs only.
pub fn of_file(inventory: &Inventory, file: &FileFacts, style: Style) -> Option<String> {
    // The process must be one of the inventory's own facts, which `file` is.
    let own = inventory.facts.files.iter().find(|f| f.place == file.place)?;
    let process = inventory.processes.open(own)?;
    let mut out = String::new();
    let tree = Tree { inventory, process: &process, style, all: true };
    tree.root(&mut out, own);
    Some(out)
}

/// The trees of everything that programs and packages open: main files where a package has any.
pub fn of_all(inventory: &Inventory, style: Style) -> String {
    let mut out = format!("{}\n", style.bold("what loads what"));
    let is_application = |g: &Group| g.role == GroupRole::Application;
    let any_application = inventory.loading.iter().any(is_application);
    // Libraries of the stack are shown where something loads them, and on their own where nothing does.
    for group in inventory.loading.iter().filter(|g| is_application(g) || !any_application) {
        for member in group.deciding() {
            let tree = Tree { inventory, process: &member.process, style, all: false };
            tree.root(&mut out, member.file);
        }
    }
    if inventory.facts.is_single_file() {
        out.push_str(
            "  a single file: its libraries come from elsewhere (--tree PATH shows what it asks for)\n",
        );
    } else if inventory.loading.is_empty() {
        out.push_str("  nothing in the image takes part in the CUDA stack\n");
    }
    out
}

const ROOT_INDENT: &str = "  ";

struct Tree<'a, 'p> {
    inventory: &'p Inventory<'a>,
    process: &'p Process<'a>,
    style: Style,
    /// System libraries too.
    all: bool,
}

fn is_shown(inventory: &Inventory, load: &Load) -> bool {
    let known = load.file.is_some_and(|f| inventory.component_at(f).is_some());
    let in_stack = load.file.is_some_and(|f| f.device_code.is_some() || inventory.is_member(f));
    known || in_stack || matches!(load.status, Status::Injected | Status::Missing | Status::Incompatible)
}

impl Tree<'_, '_> {
    fn root(&self, out: &mut String, file: &FileFacts) {
        let _ = writeln!(out, "  {}", self.style.bold(&safe(file.place.path.as_str())));
        let index = self.process.objects.iter().position(|o| o.file.place == file.place);
        if let Some(index) = index {
            self.below(out, index, ROOT_INDENT, &mut BTreeSet::from([index]));
        }
    }

    fn below(&self, out: &mut String, object: usize, indent: &str, told: &mut BTreeSet<usize>) {
        let Some(object) = self.process.objects.get(object) else { return };
        let all = self.all && indent == ROOT_INDENT;
        let shown: Vec<&Load> = object.loads.iter().filter(|l| all || is_shown(self.inventory, l)).collect();
        for (at, load) in shown.iter().enumerate() {
            let last = at + 1 == shown.len();
            let _ = writeln!(out, "{indent}{}{}", if last { "└─ " } else { "├─ " }, self.line(load));
            let next = load.object.filter(|o| told.insert(*o));
            if let Some(next) = next {
                let deeper = format!("{indent}{}", if last { "   " } else { "│  " });
                self.below(out, next, &deeper, told);
            }
        }
    }

    fn line(&self, load: &Load) -> String {
        let name = safe(&load.name);
        let Some(file) = load.file else {
            return match load.status {
                Status::Injected => format!("{name}  {}", self.style.dim("from the host's driver")),
                Status::Incompatible => format!("{name}  {}", self.style.red("only for another CPU")),
                _ => format!("{name}  {}", self.style.red("not found")),
            };
        };
        let via = match load.via {
            Some(Via::Importer) => "loaded before by the importer".to_owned(),
            Some(via) => format!("by {}", via.name()),
            None => "by its path".to_owned(),
        };
        let hidden = match load.shadows.as_slice() {
            [] => String::new(),
            [one] => format!("; hides {}", safe(one.place.path.as_str())),
            [one, more @ ..] => format!("; hides {} and {} more", safe(one.place.path.as_str()), more.len()),
        };
        let version = self.inventory.version_at(file).map(|v| format!(" {v}")).unwrap_or_default();
        let path = safe(file.place.path.as_str());
        format!("{name}{version}  {path}  {}", self.style.dim(&format!("({via}{hidden})")))
    }
}
