//! Patterns for registries and repositories -> which images strangers may make this server ask for.
//!
//! A pattern without slash is for hosts (`ghcr.io`, `*.example.org`, `registry:5000`), one with a slash for repositories below
//! them (`ghcr.io/ml/**`); `*` stays within a part, `**` goes over slashes. Docker Hub is `docker.io`.

use crate::image::reference::Reference;
use crate::image::registry::may_go_to;
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns of which one must fit.
#[derive(Clone, Debug)]
pub struct Globs {
    hosts: GlobSet,
    repositories: GlobSet,
}

impl Globs {
    pub fn new(patterns: &[String]) -> Result<Globs, String> {
        let (mut hosts, mut repositories) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let glob = glob(pattern)?;
            if pattern.contains('/') {
                repositories.add(glob)
            } else {
                hosts.add(glob)
            };
        }
        let built = |set: &GlobSetBuilder| set.build().map_err(|e| e.to_string());
        Ok(Globs { hosts: built(&hosts)?, repositories: built(&repositories)? })
    }

    /// `repository`: with the registry's host.
    pub fn match_repository(&self, repository: &str) -> bool {
        let host = repository.split('/').next().unwrap_or_default();
        self.hosts.is_match(host) || self.repositories.is_match(repository)
    }
}

fn glob(pattern: &str) -> Result<Glob, String> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .case_insensitive(true)
        .build()
        .map_err(|e| format!("`{pattern}`: {}", e.kind()))
}

/// Which images may be asked for.
#[derive(Clone, Debug)]
pub enum Allowed {
    /// `inside`: also what is inside of this machine's network.
    Any {
        inside: bool,
    },
    Only(Globs),
}

impl Allowed {
    /// Why not, where it may not.
    pub fn refuses(&self, name: &Reference) -> Option<String> {
        match self {
            Allowed::Any { inside: true } => None,
            Allowed::Any { inside: false } if may_go_to(name.api_host()) => None,
            Allowed::Any { .. } => {
                Some(format!("{name} is not looked at: its registry {} is inside the network", name.registry))
            }
            Allowed::Only(globs) if globs.match_repository(&name.repository_name()) => None,
            Allowed::Only(_) => {
                Some(format!("{name} is not looked at: its registry {} is not allowed here", name.registry))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_for_hosts_or_for_what_is_below() {
        let globs = ["ghcr.io", "*.example.org", "docker.io/library/*", "r:5000/ml/**"].map(str::to_owned);
        let allowed = Allowed::Only(Globs::new(&globs).unwrap());
        let ok = |text: &str| allowed.refuses(&Reference::parse(text).unwrap()).is_none();
        assert!(
            ok("ghcr.io/a/b")
                && ok("GHCR.io/a/b")
                && ok("x.example.org/a")
                && ok("ubuntu")
                && ok("r:5000/ml/a/b")
        );
        assert!(
            !ok("example.org/a") && !ok("a.b.example.com/a") && !ok("nvidia/cuda") && !ok("r:5000/web/a")
        );
        assert!(!ok("ghcr.io.evil.net/a/b") && !ok("evil.net/ghcr.io/a"));
        assert!(Globs::new(&["[".to_owned()]).is_err());
    }
}
