//! Text of a Dockerfile -> stages of instructions with their lines: continuations, heredocs, parser directives.

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Upper case.
    pub(super) keyword: String,
    /// What follows the keyword, continuations joined, without heredoc bodies.
    pub(super) rest: String,
    pub(super) heredocs: Vec<Heredoc>,
    /// 1-based, both included.
    pub(super) start: u32,
    pub(super) end: u32,
    /// On one line, for people.
    pub(super) text: String,
}

/// A heredoc of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heredoc {
    /// The word that ends it.
    pub(super) end: String,
    /// As written.
    pub(super) body: String,
}

/// From one FROM to the next.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) from: Instruction,
    /// What it begins from, variables filled in.
    pub(super) base: String,
    pub(super) name: Option<String>,
    pub(super) instructions: Vec<Instruction>,
}

impl Stage {
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name))
    }
}

/// Instructions that a file is read for; more than this is no Dockerfile.
const INSTRUCTIONS_MAX: usize = 500;

pub(super) fn stages(text: &str) -> Result<Vec<Stage>, String> {
    let mut out: Vec<Stage> = Vec::new();
    let mut globals: Vec<(String, String)> = Vec::new();
    for instruction in instructions(text.trim_start_matches('\u{feff}'))? {
        match (instruction.keyword.as_str(), out.last_mut()) {
            ("FROM", _) => out.push(stage(instruction, &globals)),
            ("ARG", None) => globals.extend(instruction.rest.split_once('=').map(|(k, v)| {
                let value = expanded(v.trim().trim_matches(['"', '\'']), &globals);
                (k.trim().to_owned(), value)
            })),
            (_, Some(stage)) => stage.instructions.push(instruction),
            (keyword, None) => {
                return Err(format!("line {}: `{keyword}` before the first FROM", instruction.start));
            }
        }
    }
    if out.is_empty() {
        return Err("it has no FROM".to_owned());
    }
    Ok(out)
}

fn stage(from: Instruction, globals: &[(String, String)]) -> Stage {
    let words: Vec<&str> = from.rest.split_whitespace().filter(|w| !w.starts_with("--")).collect();
    let base = expanded(words.first().copied().unwrap_or_default(), globals);
    let named = words.get(1).is_some_and(|w| w.eq_ignore_ascii_case("as"));
    let name = words.get(2).filter(|_| named).map(|w| (*w).to_owned());
    Stage { from, base, name, instructions: Vec::new() }
}

/// Length of an expanded value, bytes; no image name is longer.
const EXPANDED_MAX: usize = 1024;

/// `$NAME`, `${NAME}` and `${NAME:-default}` replaced, from left to right and once.
fn expanded(text: &str, values: &[(String, String)]) -> String {
    let value = |name: &str| values.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|a| a.split_once('}'));
        let (name, default, more) = if let Some((inner, more)) = braced {
            let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
            (name, default, more)
        } else {
            let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            let (name, more) = after.split_at(after.find(ends).unwrap_or(after.len()));
            (name, "", more)
        };
        out.push_str(value(name).unwrap_or(default));
        rest = more;
        if out.len() > EXPANDED_MAX {
            break;
        }
    }
    out.push_str(rest);
    out.chars().take(EXPANDED_MAX).collect()
}

fn instructions(text: &str) -> Result<Vec<Instruction>, String> {
    let lines: Vec<&str> = text.lines().map(|l| l.trim_end_matches('\r')).collect();
    let escape = escape_character(&lines);
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        if is_blank(line) {
            at += 1;
            continue;
        }
        let start = at;
        let mut joined = String::new();
        // Blank lines and comments between continuations belong to none of them.
        while let Some(line) = lines.get(at) {
            at += 1;
            if at > start + 1 && is_blank(line) {
                continue;
            }
            // Two of them are one that continues nothing.
            let continued = line.trim_end().strip_suffix(escape).filter(|more| !more.ends_with(escape));
            match continued {
                Some(more) if at < lines.len() => joined.push_str(more),
                Some(more) => {
                    joined.push_str(more);
                    break;
                }
                None => {
                    joined.push_str(line);
                    break;
                }
            }
        }
        let joined = joined.trim();
        let (keyword, rest) = joined.split_once(char::is_whitespace).unwrap_or((joined, ""));
        let keyword = keyword.to_ascii_uppercase();
        if !KEYWORDS.contains(&keyword.as_str()) {
            // Not the word itself: whatever file this is, it need not show in a log.
            return Err(format!("line {}: no instruction of a Dockerfile", start + 1));
        }
        let words =
            if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") { heredoc_words(rest) } else { Vec::new() };
        let mut heredocs = Vec::new();
        for word in words {
            let mut body = String::new();
            while let Some(line) = lines.get(at) {
                at += 1;
                let bare = if word.tabs { line.trim_start_matches('\t') } else { line };
                if bare == word.end {
                    break;
                }
                body.push_str(bare);
                body.push('\n');
            }
            heredocs.push(Heredoc { end: word.end, body });
        }
        let text = format!("{keyword} {}", rest.split_whitespace().collect::<Vec<_>>().join(" "));
        let [start, end] = [start + 1, at].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        out.push(Instruction { keyword, rest: rest.trim().to_owned(), heredocs, start, end, text });
        if out.len() > INSTRUCTIONS_MAX {
            return Err(format!("more than {INSTRUCTIONS_MAX} instructions"));
        }
    }
    Ok(out)
}

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn is_blank(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// `# escape=\``, which only counts above everything else.
fn escape_character(lines: &[&str]) -> char {
    for line in lines {
        let Some((name, value)) = line.strip_prefix('#').and_then(|l| l.split_once('=')) else { break };
        let name = name.trim();
        if name.contains(char::is_whitespace) {
            break;
        }
        if name.eq_ignore_ascii_case("escape") {
            return if value.trim() == "`" { '`' } else { '\\' };
        }
    }
    '\\'
}

struct HeredocWord {
    end: String,
    /// `<<-`: tabs at the beginning of lines do not count.
    tabs: bool,
}

/// `<<EOF`, `<<-EOF`, `<<"EOF"` among the words; `<<<` is none.
fn heredoc_words(rest: &str) -> Vec<HeredocWord> {
    let mut out = Vec::new();
    for word in words(rest) {
        let Some((descriptor, word)) = word.split_once("<<") else { continue };
        if !descriptor.bytes().all(|b| b.is_ascii_digit()) || word.starts_with('<') {
            continue;
        }
        let (tabs, word) = word.strip_prefix('-').map_or((false, word), |w| (true, w));
        let end = word.trim_matches(['"', '\'']);
        if !end.is_empty() && end.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            out.push(HeredocWord { end: end.to_owned(), tabs });
        }
    }
    out
}

/// Names that ENV or LABEL sets.
pub(super) fn assignments(instruction: &Instruction) -> Vec<String> {
    if !matches!(instruction.keyword.as_str(), "ENV" | "LABEL") {
        return Vec::new();
    }
    let bare = |name: &str| name.trim_matches(['"', '\'']).to_owned();
    let first = instruction.rest.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        // The old form: ENV NAME the whole rest.
        return vec![bare(first)];
    }
    words(&instruction.rest).iter().filter_map(|w| w.split_once('=')).map(|(name, _)| bare(name)).collect()
}

/// Words as a shell parts them, quotes kept.
fn words(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let (mut quote, mut escaped) = (None, false);
    for c in text.chars() {
        let splits = c.is_whitespace() && quote.is_none() && !escaped;
        match (splits, out.last_mut()) {
            (true, Some(last)) if !last.is_empty() => out.push(String::new()),
            (false, Some(last)) => last.push(c),
            _ => {}
        }
        if matches!(c, '"' | '\'') && !escaped {
            quote = match quote {
                Some(open) if open == c => None,
                Some(open) => Some(open),
                None => Some(c),
            };
        }
        escaped = c == '\\' && !escaped;
    }
    out.retain(|w| !w.is_empty());
    out
}
