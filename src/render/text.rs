//! [`Report`] -> what a person reads: first the verdict per target, then findings as a compiler prints them, then the
//! stack side by side, then what to do next. Without colour it says the same.

use super::style::{Style, safe, shorten};
use super::{Context, Document};
use crate::facts::ImageFacts;
use crate::inventory::{Component, ComponentKind, Linkage};
use crate::report::{Evidence, Finding, How, Level, Report, ReportedFinding, TargetVerdict, Verdict};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What to print.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub style: Style,
    /// Notes too.
    pub verbose: bool,
    /// Findings only.
    pub quiet: bool,
    pub show_passed: bool,
    pub show_suppressed: bool,
}

/// Reports one under the other.
pub struct Printed {
    options: Options,
    out: String,
}

impl Printed {
    pub fn new(options: Options) -> Printed {
        Printed { options, out: String::new() }
    }
}

impl Document for Printed {
    fn add(&mut self, report: &Report, context: &Context) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out.push_str(&self::report(report, context, self.options));
    }

    fn finish(self: Box<Self>) -> String {
        self.out
    }
}

fn report(report: &Report, context: &Context, options: Options) -> String {
    let mut text = String::new();
    if !options.quiet {
        text.push_str(&header(report, context, options.style));
    }
    text.push_str(&verdicts(report, options.style));
    let is_shown = |f: &&ReportedFinding| match f.suppressed {
        Some(_) => options.show_suppressed,
        None => options.verbose || f.finding.level > Level::Note,
    };
    for reported in report.findings.iter().filter(is_shown) {
        text.push('\n');
        text.push_str(&finding(reported, report, options));
    }
    if options.show_passed {
        text.push_str(&passed(report, options.style));
    }
    if !options.quiet {
        text.push_str(&stack(report, options.style));
        text.push_str(&closing(report, options));
    }
    text
}

fn header(report: &Report, context: &Context, style: Style) -> String {
    let facts = report.inventory.facts;
    let mut parts = super::title(&facts.image, style);
    parts.push(cost(facts, context));
    format!("{}\n", parts.join("   "))
}

fn cost(facts: &ImageFacts, context: &Context) -> String {
    let layers = facts.image.layers.len();
    let mut parts = vec![super::layers_words(&facts.image)];
    let Some(timing) = &context.timing else { return parts.join(", ") };
    let seconds = format!("{}.{:02} s", timing.total_ms / 1000, timing.total_ms % 1000 / 10);
    let cached = match timing.layers_cached {
        0 => String::new(),
        n if n == layers as u64 => " (all layers from cache)".to_owned(),
        n => format!(" ({n} layers from cache)"),
    };
    parts.push(format!("{seconds}{cached}"));
    parts.join(", ")
}

fn verdicts(report: &Report, style: Style) -> String {
    if report.targets.is_empty() {
        return String::new();
    }
    let titles: Vec<String> = report.targets.iter().map(title).collect();
    let width = titles.iter().map(|t| t.chars().count()).max().unwrap_or(0);
    let mut out = String::from("\n");
    for (target, title) in report.targets.iter().zip(&titles) {
        let pad = " ".repeat(width.saturating_sub(title.chars().count()));
        let word = word(target.verdict);
        let coloured = match target.verdict {
            Verdict::Runs => style.green(word),
            Verdict::Fails => style.red(word),
            Verdict::Degraded | Verdict::Unknown => style.yellow(word),
            Verdict::NoGpuCode => style.bold(word),
        };
        let gap = " ".repeat(14usize.saturating_sub(word.len()));
        let _ = writeln!(out, "  {coloured}{gap}{title}{pad}    {}", safe(&reason(target, report)));
    }
    out
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Runs => "RUNS",
        Verdict::Degraded => "DEGRADED",
        Verdict::Fails => "FAILS",
        Verdict::Unknown => "UNKNOWN",
        Verdict::NoGpuCode => "NO GPU CODE",
    }
}

/// `535.183.01 · H100 (sm_90)`.
pub(super) fn title(target: &TargetVerdict) -> String {
    let gpus: Vec<&str> = target.gpus.iter().map(|g| g.describe.as_str()).collect();
    let typed: Vec<&str> =
        target.driver.as_deref().into_iter().chain(target.gpus.first().map(|g| g.name.as_str())).collect();
    // A profile of a targets file has a name of its own.
    let named = (typed.join("/") != target.name).then(|| target.name.clone());
    let gpus = (!gpus.is_empty()).then(|| gpus.join(", "));
    let parts: Vec<String> = named.into_iter().chain(target.driver.clone()).chain(gpus).collect();
    safe(&parts.join(" · "))
}

/// Why, in a few words: the worst finding, or the mechanism.
pub(super) fn reason(target: &TargetVerdict, report: &Report) -> String {
    let worst = target
        .findings
        .iter()
        .filter_map(|&i| report.findings.get(i))
        .find(|f| f.finding.level > Level::Note);
    match (target.verdict, worst) {
        (Verdict::Fails | Verdict::Degraded | Verdict::Unknown, Some(worst)) => {
            worst.finding.headline.clone()
        }
        (Verdict::Runs, Some(worst)) => {
            format!("{}; but {}", mechanism(target, report), worst.finding.headline)
        }
        (Verdict::NoGpuCode, _) => "nothing in the image uses the GPU".to_owned(),
        _ => mechanism(target, report),
    }
}

fn mechanism(target: &TargetVerdict, report: &Report) -> String {
    let mut parts = Vec::new();
    if target.how.contains(&How::Native) {
        parts.push(covered(target, report));
    }
    if target.how.contains(&How::ForwardCompatibility) {
        parts.push("by forward compatibility".to_owned());
    } else if target.how.contains(&How::MinorVersionCompatibility) {
        parts.push("by minor-version compatibility".to_owned());
    }
    if parts.is_empty() {
        let asked = if target.driver.is_some() {
            "the driver accepts every CUDA runtime inside"
        } else {
            "nothing against it"
        };
        parts.push(asked.to_owned());
    }
    parts.join(", ")
}

/// `machine code for it in torch, cuBLAS`.
fn covered(target: &TargetVerdict, report: &Report) -> String {
    let holds =
        |f: &&ReportedFinding| f.targets.contains(&target.name) && f.finding.how.contains(&How::Native);
    let mut names: Vec<&str> =
        report.passed.iter().filter(holds).filter_map(|f| f.finding.component.as_deref()).collect();
    names.dedup();
    match names.as_slice() {
        [one] => format!("machine code in {}", shorten(one, 40)),
        many => format!("machine code in {} of {} parts", many.len(), many.len()),
    }
}

fn finding(reported: &ReportedFinding, report: &Report, options: Options) -> String {
    let style = options.style;
    let finding = &reported.finding;
    let mut out = String::new();
    let label = format!("{}[{}]", finding.level.name(), finding.rule.code);
    let label = match finding.level {
        Level::Error => style.red(&label),
        Level::Warning => style.yellow(&label),
        Level::Note | Level::Pass => style.blue(&label),
    };
    let _ = writeln!(out, "{label}: {}", style.bold(&safe(&finding.message)));
    let shown = if options.verbose { finding.evidence.len() } else { 3 };
    for evidence in finding.evidence.iter().take(shown) {
        let said = finding.message.contains(&evidence.detail);
        out.push_str(&place(evidence, report.inventory.facts, style, said));
    }
    if finding.evidence.len() > shown {
        let _ = writeln!(out, "      and {} more (-v shows them)", finding.evidence.len() - shown);
    }
    if let Some(line) = &reported.line {
        let came = if line.base { "came with " } else { "" };
        let place = format!("{}:{}", line.file, line.start);
        let text = format!("{place}  {came}{}", shorten(&line.instruction, 88));
        self::line(&mut out, style, "|", "written in", &text);
    }
    out.push_str(&details(finding, style));
    if let Some(suppression) = &reported.suppressed {
        line(&mut out, style, "=", "suppressed", &super::suppression_words(suppression));
    }
    let for_some = !reported.targets.is_empty() && reported.targets.len() < report.targets.len();
    if for_some {
        line(&mut out, style, "=", "for", &reported.targets.join(", "));
    }
    line(&mut out, style, "=", "more", &format!("cudalint explain {}", finding.rule.code));
    out
}

/// Characters of an error text that are shown.
const ERROR_SHOWN: usize = 400;

fn details(finding: &Finding, style: Style) -> String {
    let mut out = String::new();
    if let Some(host) = &finding.host {
        line(&mut out, style, "|", "on the host", host);
    }
    if let Some(error) = &finding.runtime_error {
        // On a Jetson a refused start repeats the whole requirement; the JSON report has it all.
        line(&mut out, style, "=", "at run time", &shorten(&super::error_words(error), ERROR_SHOWN));
    }
    for (index, remedy) in finding.remedies.iter().enumerate() {
        line(&mut out, style, "=", if index == 0 { "fix" } else { "or" }, remedy);
    }
    out
}

fn line(out: &mut String, style: Style, mark: &str, label: &str, text: &str) {
    let _ = writeln!(out, "   {} {label:<15} {}", style.blue(mark), safe(text));
}

/// `said`: the claim holds the detail already.
fn place(evidence: &Evidence, facts: &ImageFacts, style: Style, said: bool) -> String {
    let mut out = String::new();
    let index = evidence.place.layer.0 as usize;
    if evidence.place.path.is_root() {
        line(&mut out, style, "|", "in the image", &evidence.detail);
        return out;
    }
    let _ = writeln!(out, "  {} {}", style.blue("-->"), safe(evidence.place.path.as_str()));
    let layer = facts.image.layers.get(index);
    if let Some(instruction) = layer.and_then(|l| l.created_by.as_deref()) {
        let instruction = shorten(&safe(&plain_instruction(instruction)), 88);
        let _ = writeln!(out, "      layer {} of {}: {instruction}", index + 1, facts.image.layers.len());
    } else if facts.image.layers.len() > 1 {
        let _ = writeln!(out, "      layer {} of {}", index + 1, facts.image.layers.len());
    }
    if !said {
        line(&mut out, style, "|", "in the file", &evidence.detail);
    }
    out
}

/// `RUN pip install x` of what builders write into the history.
pub(super) fn plain_instruction(created_by: &str) -> String {
    let text = created_by.trim().trim_end_matches("# buildkit").trim_end();
    let text = text.strip_prefix("/bin/sh -c #(nop)").map_or(text, str::trim_start);
    let after_shell = text.split_once("/bin/sh -c ").map(|(_, command)| command);
    match after_shell {
        Some(command) if text.starts_with("RUN ") || text.starts_with('|') || text.starts_with("/bin/sh") => {
            format!("RUN {}", command.trim())
        }
        _ => text.to_owned(),
    }
}

fn passed(report: &Report, style: Style) -> String {
    let mut out = format!("\n{}\n", style.bold("checks that held"));
    for reported in &report.passed {
        let finding = &reported.finding;
        let _ = writeln!(out, "  {} {}", finding.rule.code, safe(&finding.message));
    }
    out
}

/// One line of the stack table.
struct Row {
    name: String,
    image: String,
    asks: String,
    host: String,
}

/// The stack side by side: what is in the image, what it asks for, what the hosts have.
pub(super) fn stack(report: &Report, style: Style) -> String {
    let rows = rows(report);
    if rows.is_empty() {
        return String::new();
    }
    let width = |f: fn(&Row) -> &String, title: &str| {
        rows.iter().map(|r| f(r).chars().count()).chain([title.len()]).max().unwrap_or(0)
    };
    let (name, image, asks) =
        (width(|r| &r.name, "stack"), width(|r| &r.image, "in the image"), width(|r| &r.asks, "asks for"));
    let pad = |text: &str, width: usize| {
        format!("{text}{}", " ".repeat(width.saturating_sub(text.chars().count())))
    };
    let with_host = rows.iter().any(|r| !r.host.is_empty());
    let title =
        format!("{}  {}  {}", pad("stack", name + 2), pad("in the image", image), pad("asks for", asks));
    let title = if with_host { format!("{title}  this host") } else { title };
    let mut out = format!("\n{}\n", style.bold(title.trim_end()));
    for row in &rows {
        let text = format!(
            "  {}  {}  {}  {}",
            pad(&row.name, name),
            pad(&row.image, image),
            pad(&row.asks, asks),
            row.host
        );
        let _ = writeln!(out, "{}", text.trim_end());
    }
    out
}

fn rows(report: &Report) -> Vec<Row> {
    let mut out = Vec::new();
    let inventory = report.inventory;
    for kind in [
        ComponentKind::Toolkit,
        ComponentKind::Library,
        ComponentKind::Framework,
        ComponentKind::Compat,
        ComponentKind::Driver,
    ] {
        let mut by_name: BTreeMap<(u8, &str), Vec<&Component>> = BTreeMap::new();
        for component in inventory.components.iter().filter(|c| c.kind == kind && is_shown(c)) {
            by_name.entry((rank(component), &component.display)).or_default().push(component);
        }
        out.extend(by_name.into_iter().map(|((_, name), of_name)| row(name, &of_name, report)));
    }
    let code = code_text(&inventory.requirements.native, &inventory.requirements.jit_from);
    if let Some(image) = code {
        let gpus = report.targets.iter().flat_map(|t| t.gpus.iter().map(|g| g.describe.as_str()));
        out.push(Row { name: "GPU code".to_owned(), image, asks: String::new(), host: listed(gpus) });
    }
    out
}

/// The report shows what people compare by hand; `inspect` shows all.
fn is_shown(component: &Component) -> bool {
    let library =
        matches!(component.component.as_str(), "cudart" | "cublas" | "cudnn" | "nccl" | "nvrtc" | "tensorrt");
    component.kind != ComponentKind::Library || library
}

fn rank(component: &Component) -> u8 {
    match component.component.as_str() {
        "cudart" => 0,
        "torch" | "tensorflow" => 1,
        _ => 2,
    }
}

fn row(name: &str, components: &[&Component], report: &Report) -> Row {
    let is_library =
        |c: &&&Component| c.kind == ComponentKind::Library && c.linkage == Some(Linkage::Dynamic);
    let mut versions: Vec<&str> =
        components.iter().filter(is_library).filter_map(|c| c.version.as_deref()).collect();
    versions.sort_unstable();
    versions.dedup();
    // Of several copies, the one that programs load is marked; parts of one library count as one.
    let several = versions.len() > 1;
    let is_loaded = |version: &str| {
        components.iter().any(|c| c.version.as_deref() == Some(version) && c.reachable == Some(true))
    };
    let text = |c: &&&Component| {
        let version = c.version.clone().unwrap_or_else(|| "version not in the file".to_owned());
        let cuda = match (&c.cuda, c.component.as_str()) {
            (Some(cuda), name) if name != "cudart" && name != "toolkit" => format!(", CUDA {cuda}"),
            _ => String::new(),
        };
        let loaded = if several && is_loaded(&version) { ", loaded" } else { "" };
        format!("{version} ({}{cuda}{loaded})", c.origin)
    };
    let is_static = |c: &&&Component| c.linkage == Some(Linkage::Static);
    let mut dynamic: Vec<String> = components.iter().filter(|c| !is_static(c)).map(|c| text(&c)).collect();
    dynamic.sort();
    dynamic.dedup();
    let fixed: Vec<&&Component> = components.iter().filter(is_static).collect();
    if !fixed.is_empty() {
        let mut versions: Vec<String> =
            fixed.iter().map(|c| c.version.clone().unwrap_or_else(|| "?".to_owned())).collect();
        versions.sort();
        versions.dedup();
        let files = if fixed.len() == 1 { "1 file".to_owned() } else { format!("{} files", fixed.len()) };
        dynamic.push(format!("{} (static, in {files})", versions.join(", ")));
    }
    let is_runtime = components.iter().any(|c| c.component == "cudart");
    let minimum = report.inventory.requirements.min_driver.as_ref().filter(|_| is_runtime);
    Row {
        name: safe(name),
        image: shorten(&safe(&dynamic.join("; ")), 60),
        asks: minimum.map_or_else(String::new, |m| format!("driver {m} or newer")),
        host: if is_runtime { hosts(report) } else { String::new() },
    }
}

/// `535.183.01, by minor-version compatibility`.
fn hosts(report: &Report) -> String {
    listed(report.targets.iter().filter_map(|t| t.driver.as_deref()))
}

/// Each once, in the order of their first mention.
fn listed<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let mut out: Vec<&str> = Vec::new();
    for text in texts {
        if !out.contains(&text) {
            out.push(text);
        }
    }
    out.join(", ")
}

fn code_text(native: &[String], ptx: &[String]) -> Option<String> {
    let mut parts = Vec::new();
    if !native.is_empty() {
        let bare: Vec<&str> = native.iter().filter_map(|n| n.strip_prefix("sm_")).collect();
        parts.push(format!("sm_{}", bare.join(" ")));
    }
    if !ptx.is_empty() {
        parts.push(format!("PTX {}", ptx.join(" ")));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn closing(report: &Report, options: Options) -> String {
    let (errors, warnings, notes) =
        (report.count(Level::Error), report.count(Level::Warning), report.count(Level::Note));
    let mut out = String::from("\n");
    if errors + warnings == 0 {
        out.push_str("No errors, no warnings");
    } else {
        let _ = write!(out, "{}, {}", super::plural(errors, "error"), super::plural(warnings, "warning"));
    }
    if notes > 0 {
        let hint = if options.verbose { "" } else { " (-v shows them)" };
        let _ = write!(out, ", {}{hint}", super::plural(notes, "note"));
    }
    let suppressed = report.findings.len() - report.counted().count();
    if suppressed > 0 {
        let hint = if options.show_suppressed { "" } else { " (--show-suppressed)" };
        let _ = write!(out, ", {suppressed} suppressed{hint}");
    }
    out.push('.');
    if !report.passed.is_empty() && errors + warnings == 0 {
        let hint = if options.show_passed { "" } else { " (--show-passed)" };
        let _ = write!(out, " {} held{hint}.", super::plural(report.passed.len(), "check"));
    }
    if let Some(lowest) = &report.lowest_driver {
        let whom = if report.targets.len() > 1 { " for all targets" } else { "" };
        let _ = write!(out, " Lowest driver{whom}: {lowest}.");
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::plain_instruction;

    #[test]
    fn history_reads_like_the_dockerfile() {
        for (history, wanted) in [
            ("RUN /bin/sh -c pip install torch # buildkit", "RUN pip install torch"),
            ("/bin/sh -c apt-get update", "RUN apt-get update"),
            ("/bin/sh -c #(nop) ADD file:abc in / ", "ADD file:abc in /"),
            ("RUN |1 TARGETARCH=amd64 /bin/sh -c apt-get update # buildkit", "RUN apt-get update"),
            ("COPY old /opt/old # buildkit", "COPY old /opt/old"),
        ] {
            assert_eq!(plain_instruction(history), wanted);
        }
    }
}
