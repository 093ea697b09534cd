//! Where a document goes: standard output or files, in colour or not.

use super::args::{Colour, Format, OutputArgs};
use crate::clock;
use crate::image::Error;
use crate::render::style::Style;
use clap::ValueEnum;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

/// What to write where.
pub(super) struct Outputs {
    targets: Vec<(Format, Option<PathBuf>)>,
    pub(super) style: Style,
}

/// Formats of most commands; the first is the default.
pub(super) const TEXT_OR_JSON: &[Format] = &[Format::Text, Format::Json];

/// `-f FORMAT`, `-o FILE` (in that format) and `-o FORMAT=FILE`. `known`: the formats of the command, its default first.
pub(super) fn plan(args: &OutputArgs, known: &[Format]) -> Result<Outputs, Error> {
    let format = args.format.or_else(|| known.first().copied()).unwrap_or(Format::Text);
    let mut targets = Vec::new();
    for text in &args.output {
        let named = match text.split_once('=') {
            Some((word, file)) if word.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                let format = Format::from_str(word, true).map_err(|_| {
                    Error::usage(format!("--output `{text}`: `{word}` is no format"))
                        .hint(format!("one of {}; a file of that name is `./{text}`", names(known)))
                })?;
                Some((format, file))
            }
            _ => None,
        };
        let (format, file) = named.unwrap_or((format, text.as_str()));
        if file.is_empty() {
            return Err(Error::usage(format!("--output `{text}`: a file name is missing")));
        }
        targets.push((format, (file != "-").then(|| PathBuf::from(file))));
    }
    if targets.is_empty() {
        targets.push((format, None));
    }
    let mut places: Vec<&Option<PathBuf>> = targets.iter().map(|(_, file)| file).collect();
    places.sort();
    if let Some([twice, _]) = places.windows(2).find(|pair| pair.first() == pair.last()) {
        let place = twice.as_ref().map_or_else(|| "-".to_owned(), |p| p.display().to_string());
        return Err(Error::usage(format!("--output: two documents for `{place}`")));
    }
    if let Some((other, _)) = targets.iter().find(|(f, _)| !known.contains(f)) {
        let message = format!("this command does not write {}", name(*other));
        return Err(Error::usage(message).hint(format!("it writes {}", names(known))));
    }
    let to_terminal =
        targets.iter().any(|(f, file)| *f == Format::Text && file.is_none()) && io::stdout().is_terminal();
    Ok(Outputs { targets, style: Style { colour: colour(args.color, to_terminal) } })
}

fn names(formats: &[Format]) -> String {
    formats.iter().map(|f| name(*f)).collect::<Vec<_>>().join(", ")
}

fn name(format: Format) -> String {
    format.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
}

/// `NO_COLOR` and `TERM=dumb` turn colour off, `FORCE_COLOR` and `CLICOLOR_FORCE` on; `--color` wins.
fn colour(asked: Colour, to_terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    match asked {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto if set("NO_COLOR") => false,
        Colour::Auto if set("FORCE_COLOR") || set("CLICOLOR_FORCE") => true,
        Colour::Auto => to_terminal && std::env::var_os("TERM").is_none_or(|t| t != "dumb"),
    }
}

impl Outputs {
    pub(super) fn wants(&self, format: Format) -> bool {
        self.targets.iter().any(|(f, _)| *f == format)
    }

    /// Writes to every place that wants this format. A closed pipe is no error.
    pub(super) fn write(&self, format: Format, bytes: &[u8]) -> Result<(), Error> {
        for (_, file) in self.targets.iter().filter(|(f, _)| *f == format) {
            match file {
                Some(path) => std::fs::write(path, bytes)
                    .map_err(|e| Error::usage(format!("cannot write `{}`: {e}", path.display())))?,
                None => to_stdout(bytes)?,
            }
        }
        Ok(())
    }
}

/// Writes to standard output; a closed pipe is no error.
pub(super) fn to_stdout(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::look(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// `--as-of`, else the day of `SOURCE_DATE_EPOCH`, else today (UTC).
pub(super) fn as_of(given: Option<&str>) -> Result<String, Error> {
    if let Some(date) = given {
        let parts: Vec<&str> = date.split('-').collect();
        let digits = |p: &str, n: usize| p.len() == n && p.bytes().all(|b| b.is_ascii_digit());
        let valid = matches!(parts.as_slice(), [y, m, d] if digits(y, 4) && digits(m, 2) && digits(d, 2)
            && (1..=12).contains(&m.parse().unwrap_or(0)) && (1..=31).contains(&d.parse().unwrap_or(0)));
        return match valid {
            true => Ok(date.to_owned()),
            false => Err(Error::usage(format!("`{date}` is no date")).hint("write it as 2026-11-20")),
        };
    }
    Ok(clock::today())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_checked() {
        assert!(as_of(Some("2026-13-01")).is_err());
        assert_eq!(as_of(Some("2026-11-20")).unwrap(), "2026-11-20");
    }
}
