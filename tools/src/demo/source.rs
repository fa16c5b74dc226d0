//! The stream of the demonstration: lines of a file, packed or not, read as often as they are needed.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::error::CliError;
use crate::files;
use crate::produce::input::{KeyColumn, Lines};

/// Where the whole year lies beside a checkout of the project.
const WHOLE_YEAR: &str = "../shared/data/flights.csv.gz";
/// What is always there in a checkout.
const EXTRACT: &str = "examples/data/flights-extract.csv.gz";

/// A file of lines below a header line.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    path: PathBuf,
}

/// How much a source holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Source {
    /// The file that was named; else the whole year of flights if it is there, else the extract, looked for from the
    /// folder this was called in and from the checkout that this program was built from.
    pub(crate) fn find(named: Option<PathBuf>) -> Result<Self, CliError> {
        if let Some(path) = named {
            return Ok(Self { path });
        }
        let built_from = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let found = [WHOLE_YEAR, EXTRACT]
            .iter()
            .flat_map(|file| [PathBuf::from(file), built_from.join(file)])
            .find(|path| files::exists(path));
        found.map(|path| Self { path }).ok_or(CliError::NoStream)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The lines behind the header line.
    pub(crate) fn lines(&self, key: Option<KeyColumn>) -> Result<Lines<Box<dyn Read + Send>>, CliError> {
        let file = files::open(&self.path)?;
        let packed = self.path.extension().is_some_and(|extension| extension == "gz");
        let plain: Box<dyn Read + Send> =
            if packed { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
        let mut lines = Lines::new(plain, None);
        lines.read()?;
        lines.set_key(key);
        Ok(lines)
    }

    /// Reads it once to know how much it holds.
    pub(crate) fn extent(&self) -> Result<Extent, CliError> {
        let mut lines = self.lines(None)?;
        let mut extent = Extent::default();
        while let Some(line) = lines.read()? {
            extent.records += 1;
            extent.bytes += u64::try_from(line.value.len()).unwrap_or(u64::MAX);
        }
        Ok(extent)
    }
}
