//! Bars on stderr while layers are read; only on a terminal.

use super::args::OutputArgs;
use crate::image::Image;
use crate::scan::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal};
use std::sync::Arc;

/// One bar per layer that is worth one.
pub(super) struct Bars {
    all: MultiProgress,
    listener: Arc<Listener>,
}

struct Listener {
    layers: Vec<Option<ProgressBar>>,
}

/// Layers smaller than this are done before a bar could be read.
const SHOWN_BYTES: u64 = 4 << 20;

/// Bars, where someone looks at them.
pub(super) fn start(image: &Image, args: &OutputArgs) -> Option<Bars> {
    let quiet = args.no_progress || args.quiet || std::env::var_os("CI").is_some();
    if quiet || !io::stderr().is_terminal() {
        return None;
    }
    let all = MultiProgress::new();
    let template = "  layer {prefix:>3}  [{bar:28}] {bytes:>10} of {total_bytes:<10} {bytes_per_sec}";
    let style = ProgressStyle::with_template(template).ok()?.progress_chars("=> ");
    let bar = |index: usize| {
        let size = image.layer_size(index).filter(|s| *s >= SHOWN_BYTES)?;
        let bar = all.add(ProgressBar::new(size)).with_style(style.clone());
        bar.set_prefix((index + 1).to_string());
        Some(bar)
    };
    let layers = (0..image.layer_count()).map(bar).collect();
    Some(Bars { listener: Arc::new(Listener { layers }), all: all.clone() })
}

impl Bars {
    pub(super) fn listener(&self) -> Arc<dyn Progress> {
        Arc::clone(&self.listener) as Arc<dyn Progress>
    }

    /// Removes the bars: the report is what stays.
    pub(super) fn finish(self) {
        let _terminal_gone = self.all.clear();
    }
}

impl Progress for Listener {
    fn read(&self, layer: usize, bytes: u64) {
        if let Some(bar) = self.layers.get(layer).and_then(Option::as_ref) {
            bar.inc(bytes);
        }
    }

    fn done(&self, layer: usize, _from_cache: bool) {
        if let Some(bar) = self.layers.get(layer).and_then(Option::as_ref) {
            bar.finish_and_clear();
        }
    }
}
