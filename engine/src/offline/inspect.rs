//! The outline of a segment: what its header and footer say, and of one that is not sealed where its frames end.

use tidelog_wire::ids::{Chain, Offset};

use super::error::{OfflineError, failed};
use super::map::{Context, map};
use super::target::{LogFiles, SegmentPath};
use crate::log::locate::load_sealed;
use crate::segment::footer::Footer;
use crate::segment::header::SegmentHeader;
use crate::segment::salvage::Salvage;
use crate::segment::{LogTag, header_of};
use crate::storage::{OpenMode, Storage};

/// What is told of a segment without reading all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Which file.
    pub segment: SegmentPath,
    /// Its header, if it verifies.
    pub header: Option<SegmentHeader>,
    /// Its footer, if it and the index verify: then it is sealed.
    pub footer: Option<Footer>,
    /// Offset behind its last record.
    pub end: Offset,
    /// Chain there; `None` if nothing says it.
    pub chain_end: Option<Chain>,
    /// What the system said, if it refused some of what was read.
    pub refused: Option<String>,
}

/// The outline of a segment. Of a sealed one header, index and footer are read, of another one everything.
///
/// # Errors
/// [`OfflineError::Io`].
pub fn outline(
    storage: &dyn Storage,
    files: &LogFiles,
    segment: &SegmentPath,
) -> Result<Outline, OfflineError> {
    let path = &segment.path;
    let file = Salvage::new(storage.open(path, OpenMode::Read).map_err(failed(path, "open"))?);
    let header = header_of(&file).map_err(failed(path, "read the header of"))?.ok();
    let tag = files.tag().or(header.map(|header| LogTag::of(header.cluster, header.log)));
    let footer = match tag {
        Some(tag) => {
            let sealed = load_sealed(&file, tag).map_err(failed(path, "read index and footer of"))?;
            sealed.ok().map(|(footer, _)| footer)
        }
        None => None,
    };
    let (end, chain_end) = match footer {
        Some(footer) => (footer.last_offset.plus(1), Some(footer.chain_end)),
        None => {
            let context = Context {
                cluster: files.cluster,
                log: files.log,
                base: Some(segment.base),
                ..Context::default()
            };
            let map = map(&file, &context).map_err(failed(path, "read"))?;
            (map.end, map.chain)
        }
    };
    let refused = file.refused(0..segment.len);
    Ok(Outline { segment: segment.clone(), header, footer, end, chain_end, refused })
}
