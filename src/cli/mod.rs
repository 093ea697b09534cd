//! What was typed -> the right command -> an exit status. The only place that reads arguments and the environment.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on stdout and stderr")]

mod args;
mod attach;
mod cache;
mod check;
mod compare;
mod config;
mod explain;
mod export;
mod host;
mod inspect;
mod load;
mod matrix;
mod output;
mod plan;
mod progress;
mod scan;
mod schema;
mod serve;
mod sweep;
mod targets;

use crate::image::{Error, ErrorKind};
use args::Command;
use config::Failure;
use std::ffi::OsString;
use std::io::Write;

/// Exit statuses of the contract.
pub mod status {
    pub const OK: u8 = 0;
    pub const FINDINGS: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const LOOK: u8 = 3;
    pub const UNKNOWN: u8 = 4;
    pub const INTERRUPTED: i32 = 130;
}

/// Ends the process with 130 when it is interrupted. Files that are being written aside stay unrenamed.
fn exit_on_interrupt() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        if let Ok(runtime) = runtime
            && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
        {
            #[expect(clippy::exit, reason = "the interrupt arrives on its own thread, main never returns")]
            std::process::exit(status::INTERRUPTED);
        }
    });
}

/// Runs the program and gives its exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let (cli, config) = match config::parse(arguments) {
        Ok(parsed) => parsed,
        Err(Failure::File(error)) => {
            say(&error);
            return status_of(&error);
        }
        Err(Failure::Arguments(error)) => {
            if error.use_stderr() {
                let _stderr_closed = writeln!(std::io::stderr(), "{}", one_line(&error));
                return status::USAGE;
            }
            let _closed_pipe = error.print();
            return status::OK;
        }
    };
    // A server ends in its own time.
    if !matches!(cli.command, Some(Command::Serve(_))) {
        exit_on_interrupt();
    }
    let result = match cli.command {
        None => check::run(&cli.check, config),
        Some(Command::Check(args)) => check::run(&args, config),
        Some(Command::Scan(args)) => scan::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Matrix(args)) => matrix::run(&args),
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Plan(args)) => plan::run(&args),
        Some(Command::Export(args)) => export::run(&args),
        Some(Command::Attach(args)) => attach::run(&args),
        Some(Command::Host(args)) => host::run(&args),
        Some(Command::Explain(args)) => explain::explain(&args),
        Some(Command::Rules(args)) => explain::rules(&args),
        Some(Command::Schema(args)) => schema::run(&args),
        Some(Command::Sweep(args)) => sweep::run(&args),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Cache(args)) => cache::run(&args),
        Some(Command::Completions(args)) => schema::completions(&args),
        Some(Command::Man(args)) => schema::man(&args),
    };
    result.unwrap_or_else(|error| {
        say(&error);
        status_of(&error)
    })
}

/// One line on stderr: what, where and how to mend it.
fn say(error: &Error) {
    let hint = error.hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default();
    let safe = crate::render::style::safe;
    let _stderr_closed = writeln!(std::io::stderr(), "error: {}{}", safe(&error.message), safe(&hint));
}

/// What the user should know, and what stops nothing.
fn remark(text: &str) {
    let _stderr_closed = writeln!(std::io::stderr(), "note: {}", crate::render::style::safe(text));
}

/// What kept layers from being read, in one line.
fn say_layers(errors: &[Error]) {
    let Some(first) = errors.first() else { return };
    let more = match errors.len() {
        1 => String::new(),
        2 => "; one more layer could not be read".to_owned(),
        n => format!("; {} more layers could not be read", n - 1),
    };
    say(&Error { message: format!("{}{more}", first.message), ..first.clone() });
}

/// clap explains itself in several lines; the contract gives wrong usage one.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let useful = |l: &&str| {
        let l = l.trim();
        !l.is_empty() && !l.starts_with("Usage:") && !l.starts_with("For more information")
    };
    let lines: Vec<&str> = text.lines().filter(useful).map(str::trim).collect();
    crate::render::style::safe(&lines.join(" "))
}

fn status_of(error: &Error) -> u8 {
    match error.kind {
        ErrorKind::Usage => status::USAGE,
        ErrorKind::Look | ErrorKind::NotFound | ErrorKind::NoPlatform | ErrorKind::Busy => status::LOOK,
    }
}

/// Where several statuses apply, 2 wins over 3 over 1 over 4.
#[derive(Default)]
pub(crate) struct Exit(Vec<u8>);

impl Exit {
    pub(crate) fn add(&mut self, status: u8) {
        self.0.push(status);
    }

    pub(crate) fn join(&mut self, other: Exit) {
        self.0.extend(other.0);
    }

    pub(crate) fn status(&self) -> u8 {
        [status::USAGE, status::LOOK, status::FINDINGS, status::UNKNOWN]
            .into_iter()
            .find(|s| self.0.contains(s))
            .unwrap_or(status::OK)
    }
}

#[cfg(test)]
mod tests {
    use super::{Exit, status};

    #[test]
    fn usage_wins_over_look_over_findings_over_unknown() {
        let of = |statuses: &[u8]| Exit(statuses.to_vec()).status();
        assert_eq!(of(&[]), status::OK);
        assert_eq!(of(&[status::UNKNOWN, status::FINDINGS]), status::FINDINGS);
        assert_eq!(of(&[status::FINDINGS, status::LOOK]), status::LOOK);
        assert_eq!(of(&[status::LOOK, status::USAGE]), status::USAGE);
    }
}
