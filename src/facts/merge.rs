//! Layers, base first -> what a container of the image would see, every file with the layer that put it there.
//!
//! Per layer, as the OCI layer specification orders it: whiteouts and opaque markers act first, and only on lower
//! layers; then the entries in tar order, the last one of a path winning. A file replaces whatever stood at its path,
//! a whole directory included. An entry below a symbolic link of a lower layer lands where the link points (as
//! containerd applies it) unless its own layer declares the directory, which then replaces the link.

use super::links::{Last, follow};
use super::{
    Content, Counts, Entry, EntryKind, FileFacts, ImageFacts, ImageIdentity, LayerFacts, Link, Package,
    Place, Problem,
};
use crate::names::{ImagePath, LayerIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

struct Node {
    layer: LayerIndex,
    kind: NodeKind,
}

#[derive(Clone)]
enum NodeKind {
    Dir,
    /// `inode`: names of one content share it.
    File {
        size: u64,
        content: Option<Arc<Content>>,
        inode: usize,
    },
    Symlink(String),
    Other,
}

/// The merged tree while layers are applied.
#[derive(Default)]
struct Tree {
    nodes: BTreeMap<ImagePath, Node>,
    inodes: usize,
}

impl Tree {
    /// Removes what lies below `dir`.
    fn remove_below(&mut self, dir: &ImagePath) {
        let prefix = if dir.is_root() { "/".to_owned() } else { format!("{dir}/") };
        let from = self.nodes.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
        let below: Vec<ImagePath> =
            from.map(|(path, _)| path).take_while(|p| p.as_str().starts_with(&prefix)).cloned().collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }

    fn remove(&mut self, path: &ImagePath) {
        self.remove_below(path);
        self.nodes.remove(path);
    }

    /// `path` with every symbolic link in its directories followed, except at the paths in `own_dirs`.
    fn real(&self, path: &ImagePath, own_dirs: &BTreeSet<ImagePath>) -> ImagePath {
        follow(path.as_str(), Last::Keep, |at| match self.nodes.get(at).map(|n| &n.kind) {
            Some(NodeKind::Symlink(target)) if !own_dirs.contains(at) => Some(target.as_str()),
            _ => None,
        })
    }

    /// Puts a node at a path. `has_parent`: the directory that holds it stands there. Returns whether directories or links
    /// changed, so that other paths may lead elsewhere now.
    fn insert(&mut self, path: ImagePath, node: Node, has_parent: bool) -> bool {
        let is_dir = matches!(node.kind, NodeKind::Dir);
        let mut changed = matches!(node.kind, NodeKind::Symlink(_));
        match self.nodes.get(&path).map(|old| &old.kind) {
            // Whatever holds something is a directory: what else could lie below?
            Some(NodeKind::Dir) if !is_dir => {
                changed = true;
                self.remove_below(&path);
            }
            Some(NodeKind::Symlink(_)) => changed = true,
            _ => {}
        }
        // A file where a directory part of this path should be gives way to the implied directory.
        let mut parent = path.parent();
        while !has_parent && !parent.is_root() {
            match self.nodes.get(&parent).map(|n| &n.kind) {
                Some(NodeKind::Dir) => break,
                Some(_) => {
                    changed = true;
                    self.nodes.remove(&parent);
                }
                None => {}
            }
            self.nodes.insert(parent.clone(), Node { layer: node.layer, kind: NodeKind::Dir });
            parent = parent.parent();
        }
        self.nodes.insert(path, node);
        changed
    }
}

/// Merges the layers. A layer that could not be read is `None`: the result is then not complete.
pub fn merge(image: ImageIdentity, layers: Vec<Option<LayerFacts>>) -> ImageFacts {
    let mut tree = Tree::default();
    let mut problems = Vec::new();
    let mut counts = Counts::default();
    let complete = layers.iter().all(Option::is_some);
    for (index, facts) in layers.into_iter().enumerate() {
        let layer = LayerIndex(u32::try_from(index).unwrap_or(u32::MAX));
        let Some(facts) = facts else { continue };
        counts.add(facts.counts);
        problems.extend(
            facts
                .problems
                .into_iter()
                .map(|p| Problem { place: Place { layer, path: p.path }, detail: p.detail }),
        );
        apply(&mut tree, layer, facts.entries, &mut problems);
    }
    let mut facts = ImageFacts { image, complete, problems, counts, ..ImageFacts::default() };
    let mut first_names: BTreeMap<usize, ImagePath> = BTreeMap::new();
    for (path, node) in tree.nodes {
        let place = Place { layer: node.layer, path };
        if let NodeKind::File { inode, .. } = node.kind {
            // Which name came first is not kept by every source: the first in order stands for the content.
            match first_names.get(&inode) {
                Some(target) => {
                    facts.links.push(Link { place: place.clone(), target: target.to_string(), hard: true });
                }
                None => drop(first_names.insert(inode, place.path.clone())),
            }
        }
        collect(&mut facts, place, node.kind);
    }
    facts.links.sort();
    facts.packages.sort_by(|a, b| (&a.place.path, &a.fact).cmp(&(&b.place.path, &b.fact)));
    facts.problems.sort();
    facts.problems.dedup();
    facts
}

fn apply(tree: &mut Tree, layer: LayerIndex, entries: Vec<Entry>, problems: &mut Vec<Problem>) {
    let own_dirs: BTreeSet<ImagePath> =
        entries.iter().filter(|e| e.kind == EntryKind::Dir).map(|e| e.path.clone()).collect();
    for entry in &entries {
        match entry.kind {
            EntryKind::Whiteout => {
                let path = tree.real(&entry.path, &own_dirs);
                tree.remove(&path);
            }
            EntryKind::Opaque => {
                let marker = tree.real(&entry.path.join("x"), &own_dirs);
                tree.remove_below(&marker.parent());
            }
            _ => {}
        }
    }
    // Entries stand directory by directory: where the last one's leads is known. (As it is named, as it really is.)
    let mut known: Option<(ImagePath, ImagePath)> = None;
    for entry in entries {
        if entry.path.is_root() || matches!(entry.kind, EntryKind::Whiteout | EntryKind::Opaque) {
            continue;
        }
        let dir = entry.path.parent();
        let same = known.take().filter(|(named, _)| *named == dir);
        let has_parent = same.is_some();
        let path = match &same {
            Some((_, real)) => real.join(entry.path.file_name()),
            None => tree.real(&entry.path, &own_dirs),
        };
        let kind = match entry.kind {
            EntryKind::Dir => NodeKind::Dir,
            EntryKind::File { size } => {
                tree.inodes += 1;
                NodeKind::File { size, content: entry.content.map(Arc::from), inode: tree.inodes }
            }
            EntryKind::Symlink(target) => NodeKind::Symlink(target),
            EntryKind::Hardlink(target) => {
                let Some(kind) = hard_link(tree, &target, &own_dirs) else {
                    let detail = format!("hard link to `{target}`, which does not exist at this point");
                    problems.push(Problem { place: Place { layer, path }, detail });
                    continue;
                };
                kind
            }
            EntryKind::Other | EntryKind::Whiteout | EntryKind::Opaque => NodeKind::Other,
        };
        let real = path.parent();
        if !tree.insert(path, Node { layer, kind }, has_parent) {
            known = Some((dir, real));
        }
    }
}

/// The link shares the content that its target has now; removing the target later leaves it.
fn hard_link(tree: &Tree, target: &ImagePath, own_dirs: &BTreeSet<ImagePath>) -> Option<NodeKind> {
    let target = tree.real(target, own_dirs);
    match tree.nodes.get(&target)?.kind.clone() {
        NodeKind::Dir => None,
        kind => Some(kind),
    }
}

fn collect(facts: &mut ImageFacts, place: Place, kind: NodeKind) {
    match kind {
        NodeKind::Symlink(target) => facts.links.push(Link { place, target, hard: false }),
        NodeKind::File { size, content, .. } => {
            let Some(content) = content else { return };
            let packages =
                content.packages.iter().map(|fact| Package { place: place.clone(), fact: fact.clone() });
            facts.packages.extend(packages);
            let Some(kind) = content.kind else { return };
            // Every hard link needs its own copy; content that only one name has is moved.
            let content = Arc::try_unwrap(content).unwrap_or_else(|shared| Content::clone(&shared));
            facts.files.push(FileFacts {
                place,
                size,
                kind,
                elf: content.elf,
                device_code: content.device_code,
                text: content.text,
                sha256: content.sha256,
            });
        }
        NodeKind::Dir | NodeKind::Other => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::FileKind;

    fn file(path: &str, tag: &str) -> Entry {
        let content =
            Content { kind: Some(FileKind::Text), text: Some(tag.to_owned()), ..Content::default() };
        Entry {
            path: ImagePath::new(path),
            kind: EntryKind::File { size: 1 },
            content: Some(Box::new(content)),
        }
    }

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry { path: ImagePath::new(path), kind, content: None }
    }

    fn merged(layers: Vec<Vec<Entry>>) -> Vec<String> {
        let layers =
            layers.into_iter().map(|entries| Some(LayerFacts { entries, ..LayerFacts::default() })).collect();
        merge(ImageIdentity::default(), layers)
            .files
            .into_iter()
            .map(|f| format!("{}:{}:{}", f.place.path, f.place.layer.0, f.text.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn a_whiteout_acts_on_lower_layers_only() {
        let lower = vec![file("/a/x", "low"), file("/a/y", "low"), file("/a-x", "low")];
        let upper =
            vec![file("/a/x", "up"), entry("/a/x", EntryKind::Whiteout), entry("/a/y", EntryKind::Whiteout)];
        assert_eq!(merged(vec![lower, upper]), ["/a-x:0:low", "/a/x:1:up"]);
    }

    #[test]
    fn an_opaque_directory_hides_what_was_below_it_wherever_the_marker_stands() {
        let lower = vec![file("/opt/d/a", "low"), file("/opt/d/s/b", "low"), file("/opt/e", "low")];
        let upper = vec![file("/opt/d/new", "up"), entry("/opt/d", EntryKind::Opaque)];
        assert_eq!(merged(vec![lower, upper]), ["/opt/d/new:1:up", "/opt/e:0:low"]);
    }

    #[test]
    fn a_file_replaces_a_whole_directory_and_the_reverse() {
        let lower = vec![file("/a/x", "low"), file("/b", "low")];
        let upper = vec![file("/a", "up"), file("/b/y", "up")];
        assert_eq!(merged(vec![lower, upper]), ["/a:1:up", "/b/y:1:up"]);
    }

    #[test]
    fn a_hard_link_outlives_its_target() {
        let lower = vec![file("/a", "low")];
        let middle = vec![entry("/b", EntryKind::Hardlink(ImagePath::new("/a")))];
        let upper = vec![entry("/a", EntryKind::Whiteout)];
        assert_eq!(merged(vec![lower, middle, upper]), ["/b:1:low"]);
    }

    #[test]
    fn a_file_below_a_linked_directory_lands_behind_the_link() {
        let lower = vec![file("/usr/lib/old", "low"), entry("/lib", EntryKind::Symlink("usr/lib".into()))];
        let follow = vec![file("/lib/new", "up")];
        assert_eq!(merged(vec![lower.clone(), follow]), ["/usr/lib/new:1:up", "/usr/lib/old:0:low"]);
        let replace = vec![entry("/lib", EntryKind::Dir), file("/lib/new", "up")];
        assert_eq!(merged(vec![lower, replace]), ["/lib/new:1:up", "/usr/lib/old:0:low"]);
    }

    #[test]
    fn link_loops_end() {
        let lower =
            vec![entry("/a", EntryKind::Symlink("b".into())), entry("/b", EntryKind::Symlink("a".into()))];
        let upper = vec![file("/a/x", "up")];
        assert_eq!(merged(vec![lower, upper]).len(), 1);
    }
}
