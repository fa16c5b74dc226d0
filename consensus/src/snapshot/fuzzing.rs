//! Doors for the fuzz targets: the names of staged files.

use tidelog_wire::ids::{LogId, Offset};

/// What a file name in a staging directory stands for.
#[must_use]
pub fn staged_name(name: &str) -> Option<(LogId, Offset)> {
    super::staging::parse_name(name)
}
