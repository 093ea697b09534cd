//! `cudalint.toml` -> arguments that were not typed. What is typed wins over the environment, that over the file.

use super::args::{self, Cli, HOSTS, OF_TARGETS};
use crate::gate::file::{self, Config, PATHS};
use crate::image::Error;
use crate::limits;
use crate::rules;
use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What stands between arguments and a run.
pub(super) enum Failure {
    /// Wrong arguments, or nothing but help asked for.
    Arguments(clap::Error),
    File(Error),
}

/// Parses the arguments, with what a configuration file adds to them.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<(Cli, Config), Failure> {
    let command = args::command(&arguments);
    let matches = command.clone().try_get_matches_from(&arguments).map_err(Failure::Arguments)?;
    let cli = |matches: &ArgMatches| Cli::from_arg_matches(matches).map_err(Failure::Arguments);
    let (leaf, at) = match matches.subcommand() {
        Some((name, leaf)) => (command.find_subcommand(name).map(|c| (c, leaf)), 2),
        None => (Some((&command, &matches)), 1),
    };
    if let Some((leaf, given)) = leaf.filter(|(c, _)| c.get_name() == "serve") {
        let whole = super::serve::with_file(&arguments, leaf, given).map_err(Failure::File)?;
        let matches = match whole {
            Some(whole) => command.clone().try_get_matches_from(whole).map_err(Failure::Arguments)?,
            None => matches,
        };
        return Ok((cli(&matches)?, Config::default()));
    }
    // Commands that look at no image take no configuration.
    let Some((leaf, given)) = leaf.filter(|(c, _)| c.get_arguments().any(|a| a.get_id() == "no_config"))
    else {
        return Ok((cli(&matches)?, Config::default()));
    };
    // Of the two the typed one wins over the variable.
    let is_typed = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
    if is_typed("no_config") && is_typed("config") {
        return Err(Failure::File(Error::usage("--config and --no-config exclude each other")));
    }
    if given.get_flag("no_config") && !is_typed("config") {
        return Ok((cli(&matches)?, Config::default()));
    }
    let typed = given.get_one::<PathBuf>("config");
    let Some((path, brought)) = find(typed.map(PathBuf::as_path)).map_err(Failure::File)? else {
        return Ok((cli(&matches)?, Config::default()));
    };
    let name = shown(&path);
    let config = read(&path, &name).map_err(Failure::File)?;
    if brought {
        stay_within(&config, &path, &name).map_err(Failure::File)?;
    }
    let mut whole: Vec<OsString> = arguments.get(..at).unwrap_or_default().to_vec();
    whole.extend(added(&config, &path, leaf, given));
    whole.extend(arguments.get(at..).unwrap_or_default().iter().cloned());
    // The arguments alone were right: what is wrong now stands in the file.
    let matches = args::command(&arguments).try_get_matches_from(&whole).map_err(|e| {
        Failure::File(Error::usage(format!("{name}: {}", super::one_line(&e).trim_start_matches("error: "))))
    })?;
    Ok((cli(&matches)?, config))
}

fn added(config: &Config, file: &Path, leaf: &clap::Command, given: &ArgMatches) -> Vec<OsString> {
    let argument = |name: &str| leaf.get_arguments().find(|a| a.get_long() == Some(name));
    let is_given = |name: &str| {
        let source = argument(name).and_then(|a| given.value_source(a.get_id().as_str()));
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let is_check = matches!(leaf.get_name(), "cudalint" | "check");
    let by_options = HOSTS.iter().any(|n| is_given(n));
    let by_file = is_given("targets");
    let dir = file.parent().unwrap_or(Path::new("."));
    let mut out = Vec::new();
    for (name, values) in &config.options {
        // Whoever names hosts one way does not mean those of the file.
        let replaced =
            by_options && OF_TARGETS.contains(&name.as_str()) || by_file && HOSTS.contains(&name.as_str());
        let Some(argument) = argument(name).filter(|_| !is_given(name) && !replaced) else { continue };
        // Elsewhere these mean something else, or what only `check` writes.
        if leaf.get_name() == "inspect" && name == "targets" || !is_check && name == "format" {
            continue;
        }
        let takes_value = argument.get_action().takes_values();
        for value in values {
            let mut text = OsString::from(format!("--{name}"));
            if takes_value {
                text.push("=");
                match PATHS.contains(&name.as_str()) {
                    true => text.push(dir.join(value)),
                    false => text.push(value),
                }
            }
            out.push(text);
        }
    }
    out
}

/// The file that was named, else the one of the directory or of a parent within the checkout, else the user's.
///
/// The second of a pair: nobody named it, so it may have come with a checkout.
fn find(typed: Option<&Path>) -> Result<Option<(PathBuf, bool)>, Error> {
    if let Some(path) = typed {
        return match path.is_file() {
            true => Ok(Some((path.to_owned(), false))),
            false => Err(Error::usage(format!("--config: no such file: `{}`", path.display()))),
        };
    }
    let here = std::env::current_dir().unwrap_or_default();
    let root = checkout(&here);
    let last = root.as_deref().unwrap_or(&here);
    for dir in here.ancestors() {
        let files = ["cudalint.toml", ".cudalint.toml"].map(|name| dir.join(name));
        if let Some(file) = files.into_iter().find(|f| f.is_file()) {
            return Ok(Some((file, true)));
        }
        if dir == last {
            break;
        }
    }
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    Ok(home.map(|h| (h.join("cudalint/config.toml"), false)).filter(|(f, _)| f.is_file()))
}

/// A file that came with a checkout names no file outside of it: what is in such a file could show in a message.
fn stay_within(config: &Config, file: &Path, name: &str) -> Result<(), Error> {
    let dir = file.parent().unwrap_or(Path::new("."));
    let root = checkout(dir).unwrap_or_else(|| dir.to_owned());
    let root = root.canonicalize().unwrap_or(root);
    let paths = config.options.iter().filter(|(key, _)| PATHS.contains(&key.as_str()));
    for (key, value) in paths.flat_map(|(key, values)| values.iter().map(move |v| (key, v))) {
        let path = dir.join(value);
        // What does not exist is refused by whoever opens it.
        if path.canonicalize().is_ok_and(|whole| !whole.starts_with(&root)) {
            return Err(Error::usage(format!("{name}: `{key} = {value:?}` leads out of the checkout"))
                .hint("name such a file on the command line, or the configuration with --config"));
        }
    }
    Ok(())
}

/// The root of the git checkout that holds a directory.
fn checkout(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().find(|d| d.join(".git").exists()).map(Path::to_owned)
}

fn read(path: &Path, name: &str) -> Result<Config, Error> {
    let text =
        text_file(path, limits::CONFIG_FILE_BYTES_MAX).map_err(|e| Error::usage(format!("`{name}`: {e}")))?;
    file::parse(name, &text, &rules::ids()).map_err(|e| Error::usage(format!("{name}: {e}")))
}

/// A text file of at most `max` bytes.
pub(super) fn text_file(path: &Path, max: u64) -> Result<String, String> {
    let opened = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut text = String::new();
    opened.take(max + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > max {
        return Err(format!("more than {max} bytes"));
    }
    Ok(text)
}

/// A file as pull requests name it: from the root of the checkout, else from the current directory, else as typed.
pub(super) fn shown(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let here = std::env::current_dir().ok();
    let bases = [whole.parent().and_then(checkout), here];
    let relative = bases.iter().flatten().find_map(|base| whole.strip_prefix(base).ok());
    relative.unwrap_or(path).display().to_string()
}
