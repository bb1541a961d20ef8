//! Progress on terminals; nothing at all where nobody looks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

fn bar(length: u64, template: &str) -> ProgressBar {
    // indicatif draws nothing when standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template).expect("the templates below are valid");
    bar.set_style(style.progress_chars("=> "));
    bar
}

/// Bytes of what `what` names.
pub(super) fn bytes(what: &str) -> ProgressBar {
    let template = "{msg:12} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}".to_owned();
    let bar = bar(0, &template);
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Requests of a benchmark.
pub(super) fn requests(count: u64) -> ProgressBar {
    let bar = bar(count, "requests     [{bar:30}] {pos}/{len} {per_sec} {eta}");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
