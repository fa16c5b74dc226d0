//! Why a benchmark could not be run to its end.

use std::error::Error;
use std::path::PathBuf;

/// Why a benchmark could not be run to its end. No figures are printed then: half a run has no meaning.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The command line.
    #[error("{found}: {expected}")]
    Usage {
        /// What was found there.
        found: String,
        /// What could be.
        expected: &'static str,
    },
    /// Something that had to be done failed.
    #[error("cannot {action}: {source}")]
    Failed {
        /// What was to be done.
        action: String,
        /// What came of it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A program that had to be run failed.
    #[error("`{program}` ended with {status}: {output}")]
    Program {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// A program is not where it is expected.
    #[error("{path} is not there: leave --programs away and it is built, or name the folder that it is in")]
    NoProgram {
        /// Where it was expected.
        path: PathBuf,
    },
    /// Stopped by a signal.
    #[error("stopped; what was started has been ended")]
    Interrupted,
}

/// Names what was to be done, for [`BenchError::Failed`].
pub(crate) trait Doing<T> {
    /// Puts `action` before the error.
    fn doing(self, action: &str) -> Result<T, BenchError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, action: &str) -> Result<T, BenchError> {
        self.map_err(|source| BenchError::Failed { action: action.to_owned(), source: source.into() })
    }
}
