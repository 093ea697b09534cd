//! The command line as typed. Every long option has its `CUDALINT_…` variable.

mod cache;
mod serve;
mod sweep;

pub(in crate::cli) use cache::{CacheAction, CacheArgs, StoreArgs};
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
pub(in crate::cli) use serve::{DoubtName, LogFormat, ModeName, ServeArgs};
use std::ffi::OsString;
use std::path::PathBuf;
pub(in crate::cli) use sweep::SweepArgs;

const EXAMPLE: &str = "\
Example: cudalint repo/train:1.2 --host-driver 535 --gpu h100
Exit status: 0 fine, 1 findings, 2 usage, 3 image not readable, 4 unknown (--strict)";

const EXAMPLES: &str = "\
Examples:
  cudalint repo/train:1.2 --host-driver 535 --gpu h100
  cudalint docker-daemon:train --targets hosts.toml --dockerfile Dockerfile
  cudalint oci:./layout --gpu h100,l4 -o sarif=out.sarif -o text=-
  cudalint scan repo/train:1.2 -o facts.json
  cudalint check --facts facts.json --host-driver 550 --gpu b200

Exit status:
  0  nothing at or above --fail-on
  1  findings
  2  wrong usage or configuration
  3  the image could not be looked at completely
  4  with --strict: a verdict is unknown

Every long option has its variable: --host-driver is CUDALINT_HOST_DRIVER.
What is typed wins over variables, these over cudalint.toml.";

/// Options that `-h` leaves to `--help`.
const RARE: [&str; 39] = [
    "allow-image-ignores",
    "as-of",
    "authfile",
    "baseline",
    "brand",
    "ca-file",
    "cache-dir",
    "cache-key",
    "cache-max-size",
    "catalog",
    "color",
    "config",
    "container-toolkit",
    "cordoned",
    "depth",
    "hash-files",
    "ignore",
    "insecure",
    "jobs",
    "no-cache",
    "no-config",
    "no-progress",
    "no-timing",
    "offline",
    "password-stdin",
    "policy",
    "registry-token",
    "runtime-mode",
    "select",
    "shared-cache",
    "shared-cache-read-only",
    "show-passed",
    "show-suppressed",
    "timeout",
    "tls-cert",
    "tls-key",
    "username",
    "verify-blobs",
    "verify-diff-ids",
];

/// The command line as people see it: short help without what is rarely needed, variables named once instead of everywhere.
///
/// `typed`: the arguments. Who names hosts one way there does not mean those that a variable names in another.
pub(in crate::cli) fn command(typed: &[OsString]) -> clap::Command {
    let says = |names: &[&str]| {
        let texts = typed.iter().filter_map(|t| t.to_str()?.strip_prefix("--"));
        texts.map(|t| t.split('=').next().unwrap_or_default()).any(|t| names.contains(&t))
    };
    let (by_options, by_file) = (says(&HOSTS), says(&["targets"]));
    let shorter = move |a: clap::Arg, one_way: bool| {
        let of_server = ["authfile", "cache-dir", "config", "tls-cert", "tls-key"];
        let is_rare =
            a.get_long().is_some_and(|long| RARE.contains(&long) && (one_way || !of_server.contains(&long)));
        let set = a.get_env().and_then(std::env::var_os);
        let is_off = |v: &std::ffi::OsString| {
            let off = ["0", "n", "no", "f", "false", "off"].map(std::ffi::OsStr::new);
            v.is_empty()
                || !a.get_action().takes_values() && off.contains(&v.to_ascii_lowercase().as_os_str())
        };
        // An empty variable is an unset one, as pipelines write it; a switch that is off excludes nothing.
        let other_way = one_way
            && a.get_long().is_some_and(|long| {
                by_options && OF_TARGETS.contains(&long) || by_file && HOSTS.contains(&long)
            });
        let a = if other_way || set.as_ref().is_some_and(is_off) {
            a.env(clap::builder::Resettable::Reset)
        } else {
            a
        };
        a.hide_env(true).hide_short_help(is_rare)
    };
    // A server takes profiles and what holds for all hosts together.
    let of = |c: clap::Command| {
        let one_way = c.get_name() != "serve";
        c.mut_args(|a| shorter(a, one_way))
    };
    // Variables mean the command that was typed; the root's options are those of a bare image.
    let has_command = typed.get(1).is_some_and(|t| Cli::command().find_subcommand(t).is_some());
    let of_root = |a: clap::Arg| match has_command {
        true => shorter(a, true).env(clap::builder::Resettable::Reset),
        false => shorter(a, true),
    };
    Cli::command().mut_args(of_root).mut_subcommands(of)
}

/// Options that name the hosts each in their own way.
pub(in crate::cli) const HOSTS: [&str; 6] =
    ["host-driver", "host-cuda", "gpu", "container-toolkit", "runtime-mode", "brand"];
/// Options that only go with a targets file.
pub(in crate::cli) const OF_TARGETS: [&str; 3] = ["targets", "target", "cordoned"];

/// Says whether a container image's GPU software will work on given hosts, without running it.
#[derive(Parser, Debug)]
#[command(
    name = "cudalint",
    version,
    about,
    after_help = EXAMPLE,
    after_long_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub(in crate::cli) struct Cli {
    #[command(subcommand)]
    pub(in crate::cli) command: Option<Command>,
    #[command(flatten)]
    pub(in crate::cli) check: CheckArgs,
}

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// Judge images against targets; the default without a command
    Check(CheckArgs),
    /// Only look: write the image's facts document
    Scan(ScanArgs),
    /// The CUDA bill of materials: stack, GPU code, image settings
    Inspect(InspectArgs),
    /// Verdict for every driver branch and GPU, and the lowest driver that runs everything
    Matrix(MatrixArgs),
    /// What differs between images: stack, GPU code, and the hosts that fare differently
    Compare(CompareArgs),
    /// The smallest set of changes with which all images run on all hosts
    Plan(PlanArgs),
    /// Write what schedulers, container runtimes, inventories and signers can act on
    Export(ExportArgs),
    /// Push a result to the registry as a referrer of the image
    Attach(AttachArgs),
    /// Write the profile of this machine, for --targets
    Host(HostArgs),
    /// Print the page of one rule
    Explain(ExplainArgs),
    /// List the rules
    Rules(RulesArgs),
    /// Print a JSON Schema
    Schema(SchemaArgs),
    /// Where the cache is and how large; prune or clear it
    Cache(CacheArgs),
    /// Look at many images: a list, a registry's catalog, what runs in a cluster
    Sweep(SweepArgs),
    /// Answer admission reviews, scanners and registries over HTTP
    Serve(Box<ServeArgs>),
    /// Print shell completions
    Completions(CompletionsArgs),
    /// Write manual pages into a directory
    Man(ManArgs),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct CheckArgs {
    /// Image: a reference in a registry, a path, PREFIX:NAME, or `-` for an archive on standard input
    ///
    /// Prefixes: registry:REF, oci:DIR[:TAG|@INDEX], oci-archive:FILE[:TAG], docker-archive:FILE[:TAG], docker-daemon:REF,
    /// podman:REF, containers-storage:REF, containerd:REF, dir:ROOTFS, file:ELF-OR-CUBIN-OR-FATBIN-OR-WHEEL. Without one, an
    /// existing path is recognised by what it holds, and anything else is a reference in a registry.
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) images: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) source: SourceArgs,
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) gate: GateArgs,
    /// Dockerfile of the image: findings name its lines
    #[arg(long, value_name = "FILE", env = "CUDALINT_DOCKERFILE", help_heading = "Image")]
    pub(in crate::cli) dockerfile: Option<PathBuf>,
    /// Print the checks that held, too
    #[arg(long, env = "CUDALINT_SHOW_PASSED", help_heading = "Output", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) show_passed: bool,
    /// Judge order too (pinning, lifecycle, security): as notes, or in production as warnings
    #[arg(long, value_enum, value_name = "PROFILE", env = "CUDALINT_POLICY", help_heading = "Output")]
    pub(in crate::cli) policy: Option<PolicyName>,
    /// Date for whatever depends on one, as YYYY-MM-DD; default today
    #[arg(long, value_name = "DATE", env = "CUDALINT_AS_OF", help_heading = "Target")]
    pub(in crate::cli) as_of: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Which findings count for the exit status.
#[derive(Args, Debug)]
#[command(next_help_heading = "Gate")]
pub(in crate::cli) struct GateArgs {
    /// Findings of this level or above make the exit status 1
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = FailOn::Error, env = "CUDALINT_FAIL_ON")]
    pub(in crate::cli) fail_on: FailOn,
    /// Exit with 4 where a verdict is unknown
    #[arg(long, env = "CUDALINT_STRICT", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) strict: bool,
    /// Only these rules count: codes, names, or beginnings of codes (CUL2)
    #[arg(long, value_name = "RULES", value_delimiter = ',', env = "CUDALINT_SELECT")]
    pub(in crate::cli) select: Vec<String>,
    /// These rules do not count
    #[arg(long, value_name = "RULES", value_delimiter = ',', env = "CUDALINT_IGNORE")]
    pub(in crate::cli) ignore: Vec<String>,
    /// Earlier JSON report: what it knows does not count
    #[arg(long, value_name = "REPORT", env = "CUDALINT_BASELINE")]
    pub(in crate::cli) baseline: Option<PathBuf>,
    /// Heed the image's label io.github.cudalint.ignore
    #[arg(long, env = "CUDALINT_ALLOW_IMAGE_IGNORES", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) allow_image_ignores: bool,
    /// Print findings that do not count, too
    #[arg(long, env = "CUDALINT_SHOW_SUPPRESSED", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) show_suppressed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum PolicyName {
    Development,
    Production,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ScanArgs {
    /// Image to look into
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) image: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) source: SourceArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct InspectArgs {
    /// Image to look into
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) image: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) source: SourceArgs,
    /// List every ELF file, not only those of the CUDA stack
    #[arg(long, env = "CUDALINT_ALL_OBJECTS", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) all_objects: bool,
    /// Print what loads what; with PATH the whole tree of that file in the image
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "", env = "CUDALINT_TREE")]
    pub(in crate::cli) tree: Option<String>,
    /// Bytes of GPU code by library and architecture; with --gpus or --targets also what those GPUs never use
    #[arg(long, env = "CUDALINT_WEIGHT", conflicts_with = "tree", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) weight: bool,
    /// GPUs of the fleet, named as for `check --gpu`
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        env = "CUDALINT_GPUS",
        requires = "weight",
        conflicts_with = "targets"
    )]
    pub(in crate::cli) gpus: Vec<String>,
    /// Hosts of the fleet, as for `check --targets`
    #[arg(long, value_name = "FILE", env = "CUDALINT_TARGETS", requires = "weight")]
    pub(in crate::cli) targets: Option<PathBuf>,
    /// Directory whose TOML files are laid over the built-in catalog
    #[arg(long, value_name = "DIR", env = "CUDALINT_CATALOG")]
    pub(in crate::cli) catalog: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct MatrixArgs {
    /// Image, as for `check`; several give one matrix each
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) images: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) source: SourceArgs,
    /// Drivers: branches, versions, FROM..TO or `all`; default: branches that hosts have
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        env = "CUDALINT_DRIVERS",
        help_heading = "Target"
    )]
    pub(in crate::cli) drivers: Vec<String>,
    /// GPUs, named as for --gpu; default: one of each kind
    #[arg(long, value_name = "LIST", value_delimiter = ',', env = "CUDALINT_GPUS", help_heading = "Target")]
    pub(in crate::cli) gpus: Vec<String>,
    /// Leave out drivers and GPUs on which nothing works
    #[arg(long, env = "CUDALINT_ONLY_SUPPORTED", help_heading = "Output", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) only_supported: bool,
    #[command(flatten)]
    pub(in crate::cli) stack: StackArgs,
    /// Directory whose TOML files are laid over the built-in catalog
    #[arg(long, value_name = "DIR", env = "CUDALINT_CATALOG", help_heading = "Target")]
    pub(in crate::cli) catalog: Option<PathBuf>,
    /// Day by which branches count as supported, as YYYY-MM-DD; default today
    #[arg(long, value_name = "DATE", env = "CUDALINT_AS_OF", help_heading = "Target")]
    pub(in crate::cli) as_of: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct CompareArgs {
    /// Images, the older first
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) images: Vec<String>,
    /// The images run in one distributed job: what its ranks must agree in
    #[arg(long, env = "CUDALINT_JOB", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) job: bool,
    #[command(flatten)]
    pub(in crate::cli) source: SourceArgs,
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// Day by which branches count as supported, as YYYY-MM-DD; default today
    #[arg(long, value_name = "DATE", env = "CUDALINT_AS_OF", help_heading = "Target")]
    pub(in crate::cli) as_of: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct PlanArgs {
    /// Images that are to run on all hosts
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) images: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) source: SourceArgs,
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// Day by which branches count as supported, as YYYY-MM-DD; default today
    #[arg(long, value_name = "DATE", env = "CUDALINT_AS_OF", help_heading = "Target")]
    pub(in crate::cli) as_of: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ExportForm {
    /// Kubernetes nodeAffinity on labels of GPU Feature Discovery (YAML)
    NodeAffinity,
    /// Image compatibility of Node Feature Discovery (YAML)
    Nfd,
    /// The NVIDIA_REQUIRE_CUDA that the files need
    Require,
    /// CycloneDX 1.6 bill of materials (JSON)
    Cyclonedx,
    /// in-toto statement of the requirements, to be signed (JSON)
    InToto,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ExportArgs {
    /// Image to export
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) image: Option<String>,
    /// What to write
    #[arg(long = "as", value_name = "FORM", value_enum, env = "CUDALINT_AS")]
    pub(in crate::cli) form: ExportForm,
    #[command(flatten)]
    pub(in crate::cli) source: SourceArgs,
    #[command(flatten)]
    pub(in crate::cli) stack: StackArgs,
    /// Directory whose TOML files are laid over the built-in catalog
    #[arg(long, value_name = "DIR", env = "CUDALINT_CATALOG", help_heading = "Target")]
    pub(in crate::cli) catalog: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum AttachForm {
    /// Image compatibility of Node Feature Discovery
    Nfd,
    /// The report as JSON
    Report,
    /// in-toto statement of the requirements, unsigned
    InToto,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct AttachArgs {
    /// Image in a registry
    #[arg(value_name = "IMAGE")]
    pub(in crate::cli) image: String,
    /// What to attach
    #[arg(long = "as", value_name = "FORM", value_enum, env = "CUDALINT_AS")]
    pub(in crate::cli) form: AttachForm,
    #[command(flatten)]
    pub(in crate::cli) source: SourceArgs,
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Where the image comes from and how it is read.
#[derive(Args, Debug)]
#[command(next_help_heading = "Image")]
pub(in crate::cli) struct SourceArgs {
    /// Facts document of `cudalint scan` in place of an image; repeatable
    #[arg(long, value_name = "FILE", env = "CUDALINT_FACTS")]
    pub(in crate::cli) facts: Vec<PathBuf>,
    /// os/architecture[/variant] to choose from an index
    #[arg(long, value_name = "PLATFORM", env = "CUDALINT_PLATFORM")]
    pub(in crate::cli) platform: Option<String>,
    /// User name for the registry
    #[arg(long, value_name = "NAME", env = "CUDALINT_USERNAME")]
    pub(in crate::cli) username: Option<String>,
    /// Read the registry password from standard input
    #[arg(long, env = "CUDALINT_PASSWORD_STDIN", requires = "username", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) password_stdin: bool,
    /// Bearer token for the registry
    #[arg(long, value_name = "TOKEN", env = "CUDALINT_REGISTRY_TOKEN", hide_env_values = true)]
    pub(in crate::cli) registry_token: Option<String>,
    /// Credential file in place of the usual ones
    #[arg(long, value_name = "FILE", env = "CUDALINT_AUTHFILE")]
    pub(in crate::cli) authfile: Option<PathBuf>,
    /// Allow plain HTTP and unverified TLS
    #[arg(long, env = "CUDALINT_INSECURE", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) insecure: bool,
    /// Certificates (PEM) to trust beside the system's
    #[arg(long, alias = "cacert", value_name = "FILE", env = "CUDALINT_CA_FILE")]
    pub(in crate::cli) ca_file: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE", env = "CUDALINT_TLS_CERT", requires = "tls_key")]
    pub(in crate::cli) tls_cert: Option<PathBuf>,
    /// Key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", env = "CUDALINT_TLS_KEY", requires = "tls_cert")]
    pub(in crate::cli) tls_key: Option<PathBuf>,
    /// Limit for the whole pull, such as 90s or 10m; default none
    #[arg(long, value_name = "DURATION", env = "CUDALINT_TIMEOUT")]
    pub(in crate::cli) timeout: Option<String>,
    /// Refuse everything that needs the network
    #[arg(long, env = "CUDALINT_OFFLINE", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) offline: bool,
    #[command(flatten)]
    pub(in crate::cli) store: StoreArgs,
    /// Layers examined at a time; 0 = as many as there are cores
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 0,
        env = "CUDALINT_JOBS",
        hide_default_value = true
    )]
    pub(in crate::cli) jobs: usize,
    /// SHA-256 of every file with GPU code
    #[arg(long, env = "CUDALINT_HASH_FILES", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) hash_files: bool,
    /// How deep to look: `libraries` leaves GPU code out and reads seekable layers in part
    #[arg(long, value_enum, value_name = "DEPTH", default_value_t = DepthName::Full, env = "CUDALINT_DEPTH", hide_default_value = true)]
    pub(in crate::cli) depth: DepthName,
    /// With --depth libraries: read seekable layers whole, so that their digest is checked
    #[arg(long, env = "CUDALINT_VERIFY_BLOBS", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) verify_blobs: bool,
    /// Check the digests of uncompressed layers too
    #[arg(long, env = "CUDALINT_VERIFY_DIFF_IDS", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) verify_diff_ids: bool,
    /// Configuration in place of cudalint.toml here, in a parent within the checkout, or of the user
    #[arg(short, long, value_name = "FILE", env = "CUDALINT_CONFIG", help_heading = "Configuration")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// Read no configuration file
    #[arg(long, env = "CUDALINT_NO_CONFIG", help_heading = "Configuration", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) no_config: bool,
}

/// How deep files are looked into.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum DepthName {
    Full,
    Libraries,
}

/// What runs containers on the hosts.
#[derive(Args, Debug)]
#[command(next_help_heading = "Target")]
pub(in crate::cli) struct StackArgs {
    /// Version of the NVIDIA container toolkit on the hosts
    #[arg(long, value_name = "VERSION", env = "CUDALINT_CONTAINER_TOOLKIT")]
    pub(in crate::cli) container_toolkit: Option<String>,
    /// How the container runtime works: legacy, cdi or csv; default: what the toolkit version implies
    #[arg(long, value_name = "MODE", env = "CUDALINT_RUNTIME_MODE")]
    pub(in crate::cli) runtime_mode: Option<String>,
    /// Brand of the GPU as `nvidia-smi -q` prints it; default: that of the product
    #[arg(long, value_name = "NAME", env = "CUDALINT_BRAND")]
    pub(in crate::cli) brand: Option<String>,
}

/// The hosts to judge for.
#[derive(Args, Debug)]
#[command(next_help_heading = "Target")]
pub(in crate::cli) struct TargetArgs {
    /// Host driver: a branch (535), a version (535.183.01) or `auto`; repeatable
    #[arg(long, value_name = "VERSION", value_delimiter = ',', env = "CUDALINT_HOST_DRIVER")]
    pub(in crate::cli) host_driver: Vec<String>,
    /// CUDA version that the host's nvidia-smi prints, where that is all you know; repeatable
    #[arg(long, value_name = "X.Y", value_delimiter = ',', env = "CUDALINT_HOST_CUDA")]
    pub(in crate::cli) host_cuda: Vec<String>,
    /// GPU: a product (h100), architecture (sm_90, hopper), compute capability (9.0) or instance type; repeatable
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "CUDALINT_GPU")]
    pub(in crate::cli) gpu: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) stack: StackArgs,
    /// Hosts: profiles in TOML, `kubectl get nodes -o json` or what `nvidia-smi` prints; `-` for standard input
    #[arg(long, value_name = "FILE", env = "CUDALINT_TARGETS", conflicts_with_all = ["host_driver", "host_cuda", "gpu", "container_toolkit", "runtime_mode", "brand"])]
    pub(in crate::cli) targets: Option<PathBuf>,
    /// Only this profile of --targets; repeatable
    #[arg(long, value_name = "NAME", env = "CUDALINT_TARGET")]
    pub(in crate::cli) target: Vec<String>,
    /// Judge for cordoned nodes of --targets too
    #[arg(long, env = "CUDALINT_CORDONED", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) cordoned: bool,
    /// Directory whose TOML files are laid over the built-in catalog
    #[arg(long, value_name = "DIR", env = "CUDALINT_CATALOG")]
    pub(in crate::cli) catalog: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(in crate::cli) struct OutputArgs {
    /// Output format: text, json; of check also sarif, github, gitlab, junit, markdown, html; of matrix markdown, svg, html
    #[arg(short, long, value_enum, env = "CUDALINT_FORMAT", hide_possible_values = true)]
    pub(in crate::cli) format: Option<Format>,
    /// Write to FILE, or FORMAT=FILE, repeatable
    #[arg(short, long, value_name = "[FORMAT=]FILE", env = "CUDALINT_OUTPUT")]
    pub(in crate::cli) output: Vec<String>,
    /// Verdicts and findings only
    #[arg(short, long, env = "CUDALINT_QUIET", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) quiet: bool,
    /// Notes too
    #[arg(short, long, env = "CUDALINT_VERBOSE", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) verbose: bool,
    /// No progress bars
    #[arg(long, env = "CUDALINT_NO_PROGRESS", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) no_progress: bool,
    /// When to colour
    #[arg(long, value_enum, default_value_t = Colour::Auto, value_name = "WHEN", env = "CUDALINT_COLOR")]
    pub(in crate::cli) color: Colour,
    /// Leave timing out, so that equal runs give equal bytes
    #[arg(long, env = "CUDALINT_NO_TIMING", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) no_timing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    Text,
    Json,
    Sarif,
    Github,
    Gitlab,
    Junit,
    Markdown,
    Svg,
    Html,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FailOn {
    Error,
    Warning,
    Note,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct HostArgs {
    /// Directory whose TOML files are laid over the built-in catalog
    #[arg(long, value_name = "DIR", env = "CUDALINT_CATALOG")]
    pub(in crate::cli) catalog: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ExplainArgs {
    /// Code or name: CUL101, driver-too-old
    #[arg(value_name = "RULE")]
    pub(in crate::cli) rule: String,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct RulesArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ListFormat::Text, env = "CUDALINT_FORMAT")]
    pub(in crate::cli) format: ListFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ListFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum SchemaName {
    Report,
    Facts,
    Matrix,
    Config,
    Targets,
    Sweep,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SchemaArgs {
    /// Which document
    #[arg(value_enum)]
    pub(in crate::cli) name: SchemaName,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct CompletionsArgs {
    #[arg(value_enum)]
    pub(in crate::cli) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ManArgs {
    /// Directory; made where it is absent
    #[arg(value_name = "DIR")]
    pub(in crate::cli) dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(command: &clap::Command, see: &mut impl FnMut(&clap::Command)) {
        see(command);
        command.get_subcommands().for_each(|c| each(c, see));
    }

    #[test]
    fn every_long_option_has_its_variable() {
        let mut options = 0;
        each(&Cli::command(), &mut |command| {
            for argument in command.get_arguments() {
                let Some(long) = argument.get_long().filter(|l| !matches!(*l, "help" | "version")) else {
                    continue;
                };
                options += 1;
                let wanted = format!("CUDALINT_{}", long.to_uppercase().replace('-', "_"));
                let env = argument.get_env().and_then(|e| e.to_str());
                assert_eq!(env, Some(wanted.as_str()), "{} --{long}", command.get_name());
            }
        });
        assert!(options > 100, "only {options} options");
    }

    #[test]
    fn short_help_fits_one_screen_and_hides_only_what_exists() {
        let mut known = std::collections::BTreeSet::new();
        each(&Cli::command(), &mut |c| {
            known.extend(c.get_arguments().filter_map(|a| a.get_long().map(str::to_owned)));
        });
        for rare in RARE {
            assert!(known.contains(rare), "{rare}");
        }
        let lines = command(&[]).render_help().to_string().lines().count();
        assert!(lines <= 64, "{lines} lines");
    }
}
