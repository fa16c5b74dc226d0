//! What the front-ends count, and the text in which Prometheus reads it.
//!
//! [`Page`] writes the text format: each family once, with its help and type, then its samples.
//!
//! Not here: counters and histograms themselves, and what is measured below (`tidelog_consensus::metrics`);
//! [`crate::admin`] writes all of it on the page.

use std::fmt::Write as _;

use tidelog_consensus::metrics::{Counter, Distribution, Histogram};

/// What the front-ends count.
#[derive(Debug, Default)]
pub struct FrontEndCounts {
    /// Batches acknowledged, duplicates not counted.
    pub appends: Counter,
    /// Records in them.
    pub append_records: Counter,
    /// Bytes of them.
    pub append_bytes: Counter,
    /// Batches that turned out to be repeats of acknowledged ones.
    pub append_duplicates: Counter,
    /// From receiving a batch to its acknowledgement.
    pub append_latency: Histogram,
    /// Answers to fetches.
    pub fetches: Counter,
    /// Bytes of batches in them.
    pub fetch_bytes: Counter,
    /// Native connections taken.
    pub connections_opened: Counter,
    /// Native connections that ended.
    pub connections_closed: Counter,
    /// Native connections turned away: above the limit, or without a valid certificate.
    pub connections_refused: Counter,
    /// Native connections closed because what came was not the protocol.
    pub connections_broken: Counter,
    /// Native requests taken.
    pub requests: Counter,
    /// Native requests answered with an error.
    pub request_errors: Counter,
    /// Requests to admin HTTP.
    pub admin_requests: Counter,
    /// Certificates taken into use while the node runs.
    pub certificate_renewals: Counter,
    /// Files of certificates that could not be taken into use.
    pub certificate_refusals: Counter,
}

/// Kind of a family of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Only rises.
    Counter,
    /// May fall.
    Gauge,
}

/// A page in Prometheus's text format 0.0.4.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Begins a family; its samples follow by [`Page::sample`].
    pub fn family(&mut self, name: &str, kind: Family, help: &str) -> &mut Self {
        let kind = match kind {
            Family::Counter => "counter",
            Family::Gauge => "gauge",
        };
        self.line(&format!("# HELP {name} {help}"));
        self.line(&format!("# TYPE {name} {kind}"));
        self
    }

    /// One sample of the family begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) -> &mut Self {
        let line = format!("{name}{} {value}", label_text(labels));
        self.line(&line);
        self
    }

    /// A family with one sample.
    pub fn single(&mut self, name: &str, kind: Family, help: &str, value: u64) {
        self.family(name, kind, help).sample(name, &[], value);
    }

    /// A family that is a histogram, in seconds.
    pub fn histogram(&mut self, name: &str, help: &str, read: &Distribution) {
        self.line(&format!("# HELP {name} {help}"));
        self.line(&format!("# TYPE {name} histogram"));
        for (bound, count) in &read.cumulative {
            let bound = seconds(*bound);
            self.line(&format!("{name}_bucket{{le=\"{bound}\"}} {count}"));
        }
        self.line(&format!("{name}_bucket{{le=\"+Inf\"}} {}", read.count));
        self.line(&format!("{name}_sum {}", seconds(read.sum_us)));
        self.line(&format!("{name}_count {}", read.count));
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// Microseconds as a decimal number of seconds, exactly.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn label_text(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let comma = if text.is_empty() { "{" } else { "," };
        // Writing to a String cannot fail.
        write!(text, "{comma}{name}=\"{escaped}\"").unwrap_or_default();
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_each_family_before_its_samples_and_escapes_labels() {
        let mut page = Page::default();
        page.family("a_total", Family::Counter, "Things.").sample(
            "a_total",
            &[("name", "x\"\\\n"), ("b", "1")],
            3,
        );
        page.histogram("h_seconds", "Times.", &Histogram::default().read());
        let text = page.finish();
        assert!(text.starts_with(
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{name=\"x\\\"\\\\\\n\",b=\"1\"} 3\n"
        ));
        assert!(text.contains("h_seconds_bucket{le=\"0.00005\"} 0\n"), "{text}");
        assert!(text.contains("h_seconds_bucket{le=\"5\"} 0\n"), "{text}");
        assert!(text.ends_with("h_seconds_sum 0\nh_seconds_count 0\n"), "{text}");
    }
}
