//! Options of `cudalint serve`.

use super::{StackArgs, StoreArgs};
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ModeName {
    /// Let everything in; audit annotations tell
    Audit,
    /// Let everything in, with warnings
    Warn,
    /// Refuse what runs nowhere
    Enforce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum DoubtName {
    Allow,
    Warn,
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LogFormat {
    Json,
    Text,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Server")]
pub(in crate::cli) struct ServeArgs {
    /// Where to listen; beyond loopback only with --tls-cert and --tls-key
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443", env = "CUDALINT_LISTEN")]
    pub(in crate::cli) listen: SocketAddr,
    /// Certificate chain of the server (PEM); taken up anew when it changes
    #[arg(long, value_name = "FILE", env = "CUDALINT_TLS_CERT", requires = "tls_key")]
    pub(in crate::cli) tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", env = "CUDALINT_TLS_KEY", requires = "tls_cert")]
    pub(in crate::cli) tls_key: Option<PathBuf>,
    /// Clients must show a certificate of this authority (PEM)
    #[arg(long, value_name = "FILE", env = "CUDALINT_CLIENT_CA", requires = "tls_cert")]
    pub(in crate::cli) client_ca: Option<PathBuf>,
    /// Who may use the scanner adapter, /v1/check, /v1/facts and /v1/notify, by tokens; default: nobody, on loopback everybody
    #[arg(long, value_name = "FILE", env = "CUDALINT_CLIENTS")]
    pub(in crate::cli) clients: Option<PathBuf>,
    /// Where promises to look at images outlive a crash; each replica its own
    #[arg(long, value_name = "DIR", env = "CUDALINT_STATE_DIR")]
    pub(in crate::cli) state_dir: Option<PathBuf>,
    /// Longest that an admission waits for an image that is not known
    #[arg(long, value_name = "DURATION", default_value = "1s", env = "CUDALINT_WAIT")]
    pub(in crate::cli) wait: String,
    /// Images that may wait to be looked at
    #[arg(long, value_name = "N", default_value_t = 1000, env = "CUDALINT_QUEUE")]
    pub(in crate::cli) queue: usize,
    /// Images whose layers are read at a time
    #[arg(long, value_name = "N", default_value_t = 4, env = "CUDALINT_SCANS")]
    pub(in crate::cli) scans: usize,
    /// After which a tag is asked for again
    #[arg(long, value_name = "DURATION", default_value = "30s", env = "CUDALINT_TAG_AGE")]
    pub(in crate::cli) tag_age: String,
    /// Goes on serving so long after it was told to stop
    #[arg(long, value_name = "DURATION", default_value = "0s", env = "CUDALINT_DRAIN")]
    pub(in crate::cli) drain: String,
    /// Attach the requirements (in-toto) to images that were pushed
    #[arg(long, env = "CUDALINT_ATTACH", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) attach: bool,
    /// How to log
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Json, env = "CUDALINT_LOG_FORMAT")]
    pub(in crate::cli) log_format: LogFormat,
    /// What to log: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "CUDALINT_LOG_LEVEL")]
    pub(in crate::cli) log_level: String,
    /// TOML file with any of these options; what is typed or in the environment wins
    #[arg(short, long, value_name = "FILE", env = "CUDALINT_CONFIG")]
    pub(in crate::cli) config: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) decide: DecideArgs,
    #[command(flatten)]
    pub(in crate::cli) hosts: HostsArgs,
    #[command(flatten)]
    pub(in crate::cli) images: ImagesArgs,
}

/// What happens with a pod.
#[derive(Args, Debug)]
#[command(next_help_heading = "Policy")]
pub(in crate::cli) struct DecideArgs {
    /// What happens with pods that run on none of the nodes they may land on
    #[arg(long, value_enum, value_name = "MODE", default_value_t = ModeName::Warn, env = "CUDALINT_MODE")]
    pub(in crate::cli) mode: ModeName,
    /// Another mode for namespaces that match; repeatable, the first that fits counts
    #[arg(long, value_name = "GLOB=MODE", value_delimiter = ',', env = "CUDALINT_NAMESPACE_MODE")]
    pub(in crate::cli) namespace_mode: Vec<String>,
    /// What happens where the facts do not decide
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = DoubtName::Warn, env = "CUDALINT_UNKNOWN")]
    pub(in crate::cli) unknown: DoubtName,
    /// What happens while an image is not looked at yet; default: as --unknown
    #[arg(long, value_enum, value_name = "POLICY", env = "CUDALINT_COLD")]
    pub(in crate::cli) cold: Option<DoubtName>,
    /// What happens where an image could not be looked at; default: as --unknown
    #[arg(long, value_enum, value_name = "POLICY", env = "CUDALINT_FAILED")]
    pub(in crate::cli) failed: Option<DoubtName>,
}

/// Where pods may land.
#[derive(Args, Debug)]
pub(in crate::cli) struct HostsArgs {
    /// Nodes: `kubernetes` watches the API, a file holds `kubectl get nodes -o json`
    #[arg(long, value_name = "FILE|kubernetes", env = "CUDALINT_NODES", help_heading = "Hosts")]
    pub(in crate::cli) nodes: Option<String>,
    /// Hosts in TOML: all there are, or with --nodes pools that stand in where no node fits
    #[arg(long, value_name = "FILE", env = "CUDALINT_TARGETS", help_heading = "Hosts")]
    pub(in crate::cli) targets: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) stack: StackArgs,
    /// Directory whose TOML files are laid over the built-in catalog
    #[arg(long, value_name = "DIR", env = "CUDALINT_CATALOG", help_heading = "Hosts")]
    pub(in crate::cli) catalog: Option<PathBuf>,
    /// Day as of which is judged; default the day of the start
    #[arg(long, value_name = "DATE", env = "CUDALINT_AS_OF", help_heading = "Hosts")]
    pub(in crate::cli) as_of: Option<String>,
}

/// Where images come from.
#[derive(Args, Debug)]
#[command(next_help_heading = "Image")]
pub(in crate::cli) struct ImagesArgs {
    /// Registries (ghcr.io, *.example.org) or repositories (ghcr.io/ml/**) that may be asked; repeatable
    #[arg(long, value_name = "GLOB", value_delimiter = ',', env = "CUDALINT_ALLOW_REGISTRY")]
    pub(in crate::cli) allow_registry: Vec<String>,
    /// Ask any registry that a pod names
    #[arg(long, env = "CUDALINT_ALLOW_ANY_REGISTRY", conflicts_with = "allow_registry", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) allow_any_registry: bool,
    /// Let facts of layers that one registry gave serve images of the others, and those of `scan` and `sweep` too
    ///
    /// Who runs one of the registries could then learn what is in layers of another whose digests he knows.
    #[arg(long, env = "CUDALINT_SHARE_ACROSS_REGISTRIES", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) share_across_registries: bool,
    /// os/architecture for images where no node says it
    #[arg(long, value_name = "PLATFORM", env = "CUDALINT_PLATFORM")]
    pub(in crate::cli) platform: Option<String>,
    /// Credential file in place of the usual ones
    #[arg(long, value_name = "FILE", env = "CUDALINT_AUTHFILE")]
    pub(in crate::cli) authfile: Option<PathBuf>,
    /// Allow registries plain HTTP and unverified TLS
    #[arg(long, env = "CUDALINT_INSECURE", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) insecure: bool,
    /// Certificates (PEM) to trust beside the system's
    #[arg(long, alias = "cacert", value_name = "FILE", env = "CUDALINT_CA_FILE")]
    pub(in crate::cli) ca_file: Option<PathBuf>,
    /// Limit for reading one image
    #[arg(long, value_name = "DURATION", default_value = "30m", env = "CUDALINT_TIMEOUT")]
    pub(in crate::cli) timeout: String,
    #[command(flatten)]
    pub(in crate::cli) store: StoreArgs,
}
