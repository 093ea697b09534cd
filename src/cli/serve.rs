//! `cudalint serve`: options and a configuration file -> a running server.

use super::args::{self, DoubtName, LogFormat, ModeName, ServeArgs};
use super::{config, load, output, status, targets};
use crate::admission::decision::{Doubt, Mode, Policy};
use crate::gate::closest;
use crate::image::registry::RegistryOptions;
use crate::image::{Error, OpenOptions};
use crate::limits;
use crate::names::{Platform, located};
use crate::scan;
use crate::serve::allow::{Allowed, Globs};
use crate::serve::looks::Ages;
use crate::serve::{Settings, nodes, tls};
use clap::parser::ValueSource;
use clap::{ArgMatches, ValueEnum};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Longest wait for one answer of a shared cache: pods wait for it, and layers can be read again.
const CACHE_PATIENCE: Duration = Duration::from_secs(3);
/// After which a shared cache that failed is tried again.
const CACHE_PAUSE: Duration = Duration::from_secs(30);

pub(super) fn run(args: &ServeArgs) -> Result<u8, Error> {
    let settings = settings(args)?;
    log(args)?;
    crate::serve::run(settings)?;
    Ok(status::OK)
}

fn settings(args: &ServeArgs) -> Result<Settings, Error> {
    let catalog = load::catalog(args.hosts.catalog.as_deref())?;
    let images = &args.images;
    let allowed = match (images.allow_any_registry, images.allow_registry.as_slice()) {
        (true, _) => Allowed::Any { inside: args.listen.ip().is_loopback() },
        (false, []) => {
            return Err(Error::usage("no registry is allowed")
                .hint("name those that pods use with --allow-registry GLOB, or give --allow-any-registry"));
        }
        (false, globs) => {
            Allowed::Only(Globs::new(globs).map_err(|e| Error::usage(format!("--allow-registry {e}")))?)
        }
    };
    let nodes = match args.hosts.nodes.as_deref() {
        None if args.hosts.targets.is_none() => {
            return Err(Error::usage("no hosts are given: there is nothing to judge for")
                .hint("give --nodes kubernetes, or --nodes or --targets with a file"));
        }
        None => nodes::Source::Nowhere,
        Some("kubernetes") => nodes::Source::Kubernetes,
        Some(file) => nodes::Source::File(file.into()),
    };
    let platform = match images.platform.as_deref().map(Platform::parse) {
        None => Platform::of_this_machine(),
        Some(Some(platform)) => platform,
        Some(None) => {
            return Err(Error::usage("--platform is none").hint("os/architecture, such as linux/arm64"));
        }
    };
    let kept = load::kept(&images.store, false, Some(CACHE_PATIENCE))?;
    if kept.is_in_registries() {
        return Err(Error::usage("--shared-cache referrers is for single images")
            .hint("name a directory or an object store"));
    }
    let cache = kept.cache.that_recovers(CACHE_PAUSE);
    let registry = RegistryOptions {
        authfile: images.authfile.clone(),
        insecure: images.insecure,
        ca_file: images.ca_file.clone(),
        timeout: Some(span("timeout", &images.timeout)?),
        confined: true,
        ..RegistryOptions::default()
    };
    let open = OpenOptions { registry, documents: Some(Arc::new(cache.clone())), ..OpenOptions::default() };
    let scan = scan::Options { jobs: 1, budget: Some(scan::Budget::default()), ..scan::Options::default() };
    let files = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => {
            Some(tls::Files { cert: cert.clone(), key: key.clone(), client_ca: args.client_ca.clone() })
        }
        _ => None,
    };
    // Below it a tag would be old before it is used.
    let tag = span("tag-age", &args.tag_age)?.max(Duration::from_secs(1));
    let tool = load::tool(&catalog);
    Ok(Settings {
        listen: args.listen,
        tls: files,
        nodes,
        targets: args.hosts.targets.clone(),
        stack: targets::host(&args.hosts.stack)?,
        policy: policy(args),
        modes: modes(&args.decide.namespace_mode)?,
        allowed,
        clients: args.clients.clone(),
        wait: span("wait", &args.wait)?,
        state_dir: args.state_dir.clone(),
        queue: args.queue.max(1),
        scans: args.scans.clamp(1, limits::SWEEP_WORKERS_MAX),
        ages: Ages { tag_soft: tag, tag_hard: tag.saturating_mul(2), ..Ages::default() },
        drain: span("drain", &args.drain)?,
        attach: args.attach,
        shares: images.share_across_registries,
        open,
        cache,
        scan,
        catalog,
        tool,
        as_of: output::as_of(args.hosts.as_of.as_deref())?,
        platform,
    })
}

fn span(option: &str, text: &str) -> Result<Duration, Error> {
    load::duration(text).ok_or_else(|| {
        Error::usage(format!("--{option} `{text}` is no duration"))
            .hint("a number with s, m or h, such as 90s or 10m")
    })
}

fn policy(args: &ServeArgs) -> Policy {
    let doubt = |name: DoubtName| match name {
        DoubtName::Allow => Doubt::Allow,
        DoubtName::Warn => Doubt::Warn,
        DoubtName::Deny => Doubt::Deny,
    };
    let decide = &args.decide;
    Policy {
        mode: mode(decide.mode),
        unknown: doubt(decide.unknown),
        cold: doubt(decide.cold.unwrap_or(decide.unknown)),
        failed: doubt(decide.failed.unwrap_or(decide.unknown)),
    }
}

fn mode(name: ModeName) -> Mode {
    match name {
        ModeName::Audit => Mode::Audit,
        ModeName::Warn => Mode::Warn,
        ModeName::Enforce => Mode::Enforce,
    }
}

fn modes(texts: &[String]) -> Result<Vec<(globset::GlobMatcher, Mode)>, Error> {
    let one = |text: &String| {
        let wrong = |why: &str| Error::usage(format!("--namespace-mode `{text}`: {why}"));
        let (glob, name) =
            text.split_once('=').ok_or_else(|| wrong("write GLOB=MODE, such as ml-*=enforce"))?;
        let name =
            ModeName::from_str(name, false).map_err(|_| wrong("the modes are audit, warn and enforce"))?;
        let glob = globset::Glob::new(glob).map_err(|e| wrong(&e.kind().to_string()))?;
        Ok((glob.compile_matcher(), mode(name)))
    };
    texts.iter().map(one).collect()
}

/// Logs go to stderr, one line each. What libraries would tell is left out.
fn log(args: &ServeArgs) -> Result<(), Error> {
    let level = args.log_level.to_ascii_lowercase();
    if !["error", "warn", "info", "debug"].contains(&level.as_str()) {
        return Err(Error::usage(format!("--log-level `{}` is none", args.log_level))
            .hint("error, warn, info or debug"));
    }
    // Requests of the Kubernetes client are told with their whole URLs at lower levels.
    let filter = EnvFilter::new(format!("off,cudalint={level}"));
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let set = match args.log_format {
        LogFormat::Json => logs.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => logs.with_ansi(false).try_init(),
    };
    set.map_err(|e| Error::look(format!("logs cannot be set up: {e}")))
}

/// Values of these options are files, relative to the configuration.
const PATHS: [&str; 13] = [
    "authfile",
    "ca-file",
    "cache-dir",
    "cache-key",
    "catalog",
    "client-ca",
    "clients",
    "nodes",
    "shared-cache",
    "state-dir",
    "targets",
    "tls-cert",
    "tls-key",
];

/// Options of the server's configuration file that were not given otherwise, as arguments.
pub(super) fn added(file: &Path, leaf: &clap::Command, given: &ArgMatches) -> Result<Vec<OsString>, Error> {
    let name = file.display();
    let text = config::text_file(file, limits::CONFIG_FILE_BYTES_MAX)
        .map_err(|e| Error::usage(format!("--config `{name}`: {e}")))?;
    let table: toml::Table = toml::from_str(&text)
        .map_err(|e| Error::usage(format!("--config `{name}`: {}", located(&text, &e))))?;
    let mut out = Vec::new();
    for (key, value) in &table {
        let known: Vec<&str> = leaf
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .filter(|l| *l != "config" && *l != "help")
            .collect();
        let Some(argument) =
            leaf.get_arguments().find(|a| known.contains(&key.as_str()) && a.get_long() == Some(key))
        else {
            let hint = match closest(&key.replace('_', "-"), known.into_iter()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "its keys are the long options of `cudalint serve`".to_owned(),
            };
            return Err(Error::usage(format!("--config `{name}`: unknown key `{key}`")).hint(hint));
        };
        let is_given = |id: &str| {
            let source = given.value_source(id);
            matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
        };
        // Two ways of saying one thing: who says it the other way does not mean the file's.
        let other = match key.as_str() {
            "allow-registry" => "allow_any_registry",
            "allow-any-registry" => "allow_registry",
            _ => argument.get_id().as_str(),
        };
        if is_given(argument.get_id().as_str()) || is_given(other) {
            continue;
        }
        for value in values(value).map_err(|why| Error::usage(format!("--config `{name}`: {key}: {why}")))? {
            let mut text = OsString::from(format!("--{key}"));
            if argument.get_action().takes_values() {
                text.push("=");
                let is_url = value.contains("://") || value == "kubernetes";
                match PATHS.contains(&key.as_str()) && !is_url {
                    true => text.push(file.parent().unwrap_or(Path::new(".")).join(value)),
                    false => text.push(value),
                }
            } else if value != "true" {
                continue;
            }
            out.push(text);
        }
    }
    Ok(out)
}

fn values(value: &toml::Value) -> Result<Vec<String>, &'static str> {
    match value {
        toml::Value::String(text) => Ok(vec![text.clone()]),
        toml::Value::Integer(number) => Ok(vec![number.to_string()]),
        toml::Value::Boolean(yes) => Ok(vec![yes.to_string()]),
        toml::Value::Array(items) => {
            let mut out = Vec::new();
            for item in items {
                out.extend(values(item)?);
            }
            Ok(out)
        }
        _ => Err("a text, a number, true or false, or a list of them is expected"),
    }
}

/// The arguments of a server with those of its configuration file.
pub(super) fn with_file(
    arguments: &[OsString],
    leaf: &clap::Command,
    given: &ArgMatches,
) -> Result<Option<Vec<OsString>>, Error> {
    let Some(file) = given.get_one::<std::path::PathBuf>("config") else { return Ok(None) };
    let mut whole: Vec<OsString> = arguments.iter().take(2).cloned().collect();
    whole.extend(added(file, leaf, given)?);
    whole.extend(arguments.iter().skip(2).cloned());
    // What is wrong now stands in the file.
    let parsed = args::command(arguments).try_get_matches_from(&whole);
    parsed.map_err(|e| {
        Error::usage(format!(
            "--config `{}`: {}",
            file.display(),
            super::one_line(&e).trim_start_matches("error: ")
        ))
    })?;
    Ok(Some(whole))
}
