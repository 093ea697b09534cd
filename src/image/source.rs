//! What was typed as IMAGE -> which source to open. Existing paths are recognised by what they hold; what looks like a
//! path but is absent is a usage error, never a pull.

use super::reference::Reference;
use super::{Error, archive};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where an image comes from.
#[derive(Clone, Debug)]
pub enum Source {
    Registry(Reference),
    OciLayout {
        dir: PathBuf,
        select: Option<String>,
    },
    OciArchive {
        file: PathBuf,
        select: Option<String>,
    },
    DockerArchive {
        file: PathBuf,
        select: Option<String>,
    },
    Directory(PathBuf),
    SingleFile(PathBuf),
    /// An archive of either kind on standard input.
    Stdin,
    /// An image that an engine on this machine holds.
    Engine {
        engine: Engine,
        name: String,
    },
}

/// Engines that export what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Docker,
    Podman,
    /// The store that podman, buildah and CRI-O share.
    Storage,
    Containerd,
}

impl Engine {
    fn prefix(self) -> &'static str {
        match self {
            Engine::Docker => "docker-daemon",
            Engine::Podman => "podman",
            Engine::Storage => "containers-storage",
            Engine::Containerd => "containerd",
        }
    }
}

impl Source {
    /// Reads IMAGE as typed; looks at the disk to tell paths from references.
    pub fn parse(text: &str) -> Result<Source, Error> {
        if text.is_empty() {
            return Err(Error::usage("an empty image reference"));
        }
        if let Some(rest) = text.strip_prefix("docker://").or_else(|| text.strip_prefix("registry:")) {
            return Reference::parse(rest).map(Source::Registry);
        }
        if let Some(source) = text.split_once(':').and_then(|(prefix, rest)| Source::prefixed(prefix, rest)) {
            return source;
        }
        if text == "-" {
            return Ok(Source::Stdin);
        }
        let path = Path::new(text);
        if path.exists() {
            return Source::of_path(path);
        }
        let looks_like_path = text.starts_with(['.', '/', '~'])
            || [".tar", ".tar.gz", ".tgz", ".so", ".whl", ".cubin", ".fatbin"]
                .iter()
                .any(|e| text.ends_with(e));
        if looks_like_path {
            return Err(Error::usage(format!("no such file or directory: `{text}`")));
        }
        Reference::parse(text).map(Source::Registry)
    }

    /// The image's name without tag or digest, for fingerprints.
    pub fn repository(&self) -> String {
        match self {
            Source::Registry(name) => name.repository_name(),
            Source::Engine { name, .. } => {
                let reference = if is_id(name) { None } else { Reference::parse(name).ok() };
                reference.map_or_else(|| name.clone(), |reference| reference.repository_name())
            }
            Source::DockerArchive { select: Some(name), .. } if name.contains(['/', ':']) => {
                Reference::parse(name).map_or_else(|_| name.clone(), |name| name.repository_name())
            }
            Source::OciLayout { dir, .. } => format!("oci:{}", tidy(dir)),
            Source::OciArchive { file, .. } => format!("oci-archive:{}", tidy(file)),
            Source::DockerArchive { file, .. } => format!("docker-archive:{}", tidy(file)),
            Source::Directory(dir) => format!("dir:{}", tidy(dir)),
            Source::SingleFile(file) => format!("file:{}", tidy(file)),
            Source::Stdin => self.to_string(),
        }
    }

    /// What to call it in the middle of a sentence.
    pub fn place(&self) -> String {
        match self {
            Source::Stdin => "archive on standard input".to_owned(),
            other => other.to_string(),
        }
    }

    fn prefixed(prefix: &str, rest: &str) -> Option<Result<Source, Error>> {
        Some(match prefix {
            "oci" | "oci-dir" => selected(rest).and_then(|(dir, select)| {
                directory(&dir)?;
                Ok(Source::OciLayout { dir, select })
            }),
            "oci-archive" => selected(rest)
                .and_then(|(f, select)| file(&f).map(|()| Source::OciArchive { file: f, select })),
            "docker-archive" => selected(rest)
                .and_then(|(f, select)| file(&f).map(|()| Source::DockerArchive { file: f, select })),
            "dir" | "rootfs" => directory(Path::new(rest)).map(|()| Source::Directory(rest.into())),
            "file" => file(Path::new(rest)).map(|()| Source::SingleFile(rest.into())),
            "docker-daemon" => held(Engine::Docker, rest),
            "podman" => held(Engine::Podman, rest),
            "containers-storage" => held(Engine::Storage, rest),
            "containerd" => held(Engine::Containerd, rest),
            _ => return None,
        })
    }

    fn of_path(path: &Path) -> Result<Source, Error> {
        let path_buf = path.to_owned();
        if path.is_dir() {
            let is_layout = path.join("oci-layout").exists() || path.join("index.json").exists();
            return Ok(match is_layout {
                true => Source::OciLayout { dir: path_buf, select: None },
                false => Source::Directory(path_buf),
            });
        }
        Ok(match archive::kind(path)? {
            Some(archive::Kind::Oci) => Source::OciArchive { file: path_buf, select: None },
            Some(archive::Kind::Docker) => Source::DockerArchive { file: path_buf, select: None },
            None => Source::SingleFile(path_buf),
        })
    }
}

/// A path as everybody writes it: without `.` and a slash at its end.
fn tidy(path: &Path) -> String {
    let parts = path.components().filter(|c| *c != std::path::Component::CurDir);
    parts.collect::<PathBuf>().display().to_string()
}

/// An image's id in an engine, whole or its beginning.
fn is_id(name: &str) -> bool {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    hex.len() >= 7 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The name goes to programs and into addresses: it must look like one, or like an id.
fn held(engine: Engine, name: &str) -> Result<Source, Error> {
    if !is_id(name) {
        Reference::parse(name)?;
    }
    Ok(Source::Engine { engine, name: name.to_owned() })
}

/// `PATH`, `PATH:TAG` or `PATH@INDEX`.
fn selected(rest: &str) -> Result<(PathBuf, Option<String>), Error> {
    if rest.is_empty() {
        return Err(Error::usage("a path is missing behind the prefix"));
    }
    if Path::new(rest).exists() {
        return Ok((rest.into(), None));
    }
    if let Some((path, index)) = rest.rsplit_once('@').filter(|(_, i)| i.bytes().all(|b| b.is_ascii_digit()))
    {
        return Ok((path.into(), Some(format!("@{index}"))));
    }
    match rest.split_once(':') {
        Some((path, tag)) if !tag.is_empty() => Ok((path.into(), Some(tag.to_owned()))),
        _ => Ok((rest.into(), None)),
    }
}

fn directory(path: &Path) -> Result<(), Error> {
    match (path.exists(), path.is_dir()) {
        (true, true) => Ok(()),
        (true, false) => Err(Error::usage(format!("`{}` is a file, not a directory", path.display()))),
        _ => Err(Error::usage(format!("no such directory: `{}`", path.display()))),
    }
}

fn file(path: &Path) -> Result<(), Error> {
    match (path.exists(), path.is_dir()) {
        (true, false) => Ok(()),
        (true, true) => Err(Error::usage(format!("`{}` is a directory, not a file", path.display()))
            .hint("use `oci:DIR` for an OCI layout, `dir:DIR` for an unpacked root file system")),
        _ => Err(Error::usage(format!("no such file: `{}`", path.display()))),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |prefix: &str, path: &Path, select: &Option<String>| {
            let select = match select {
                Some(index) if index.starts_with('@') => index.clone(),
                Some(tag) => format!(":{tag}"),
                None => String::new(),
            };
            format!("{prefix}:{}{select}", path.display())
        };
        match self {
            Source::Registry(reference) => write!(f, "{reference}"),
            Source::OciLayout { dir, select } => f.write_str(&with("oci", dir, select)),
            Source::OciArchive { file, select } => f.write_str(&with("oci-archive", file, select)),
            Source::DockerArchive { file, select } => f.write_str(&with("docker-archive", file, select)),
            Source::Directory(dir) => f.write_str(&with("dir", dir, &None)),
            Source::SingleFile(file) => f.write_str(&with("file", file, &None)),
            Source::Stdin => f.write_str("-"),
            Source::Engine { engine, name } => write!(f, "{}:{name}", engine.prefix()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_path_is_never_pulled() {
        for absent in
            ["./nowhere", "/nowhere/at/all", "image.tar", "oci:/nowhere:tag", "dir:/nowhere", "file:/nowhere"]
        {
            let error = Source::parse(absent).unwrap_err();
            assert_eq!(error.kind, super::super::ErrorKind::Usage, "{absent}: {error}");
        }
        assert!(matches!(Source::parse("ubuntu:22.04").unwrap(), Source::Registry(_)));
        assert!(matches!(Source::parse("docker://ubuntu").unwrap(), Source::Registry(_)));
        assert!(matches!(Source::parse("localhost:5000/a:b").unwrap(), Source::Registry(_)));
    }

    #[test]
    fn a_path_is_recognised_by_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Source::parse(dir.path().to_str().unwrap()).unwrap(), Source::Directory(_)));
        std::fs::write(dir.path().join("oci-layout"), "{}").unwrap();
        let text = dir.path().to_str().unwrap();
        assert!(matches!(Source::parse(text).unwrap(), Source::OciLayout { select: None, .. }));
        let tagged = Source::parse(&format!("oci:{text}:train")).unwrap();
        assert!(matches!(&tagged, Source::OciLayout { select: Some(t), .. } if t == "train"));
        assert_eq!(tagged.to_string(), format!("oci:{text}:train"));
        assert!(
            Source::parse(&format!("oci-archive:{text}")).unwrap_err().message.contains("is a directory")
        );
    }
}
