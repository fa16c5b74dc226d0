//! Progress of long work, on standard error where that is a terminal, and nowhere else.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Work of so many steps.
pub(crate) fn steps(count: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(count).unwrap_or(u64::MAX)).with_message(what);
    styled(bar, "{msg} {bar:30} {pos} of {len}, {eta}")
}

/// Work over so many bytes.
pub(crate) fn bytes(count: u64, what: &'static str) -> ProgressBar {
    styled(
        ProgressBar::new(count).with_message(what),
        "{msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta}",
    )
}

/// Waiting for something of which no end can be told; the message says for what.
pub(crate) fn waiting(message: impl Into<String>) -> ProgressBar {
    let bar = styled(ProgressBar::new_spinner().with_message(message.into()), "{spinner} {msg} {elapsed}");
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
