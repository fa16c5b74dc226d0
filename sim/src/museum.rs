//! The museum: bugs that are put in on purpose, and how soon the checkers find each.
//!
//! A checker that never fired may be one that cannot. So each bug of [`Defect`] is played, seed after seed, until a
//! checker names a seed; one that is not found within its limit means that the simulation does not look where it
//! should. The bugs are in the code only with the feature `defects`; without it this museum is empty.

use serde::Serialize;

use crate::run::play_all;

#[cfg(feature = "defects")]
pub use tidelog_consensus::defects::Defect;

/// No defect exists in this build.
#[cfg(not(feature = "defects"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {}

#[cfg(not(feature = "defects"))]
impl Defect {
    /// None.
    pub const ALL: [Self; 0] = [];
}

/// Within how many seeds each defect must be caught.
pub const SEEDS_MAX: u64 = 500;

/// Its name on the command line.
#[must_use]
pub fn name(defect: Defect) -> String {
    format!("{defect:?}")
}

/// Lets this thread play a defect, or none.
#[cfg(feature = "defects")]
pub(crate) fn begin(defect: Option<Defect>) {
    tidelog_consensus::defects::play(defect);
}

/// Lets this thread play none.
#[cfg(not(feature = "defects"))]
pub(crate) const fn begin(_: Option<Defect>) {}

/// How a defect was caught.
#[derive(Clone, Debug, Serialize)]
pub struct Catch {
    /// The defect.
    pub defect: String,
    /// How many seeds were needed; `None` if it was not caught.
    pub after: Option<u64>,
    /// The property that it broke.
    pub checker: Option<&'static str>,
    /// What was seen.
    pub seen: Option<String>,
}

/// Plays `defect` from seed 1 on until it is caught.
#[must_use]
pub fn visit(defect: Defect, threads: usize) -> Catch {
    #[cfg(feature = "defects")]
    if defect == Defect::CountAmnesiac {
        // Nobody forgets anything where no disk is lost. It is the last to be shown.
        crate::settings::grow();
    }
    let summary = play_all(&(1..=SEEDS_MAX), Some(defect), threads);
    // Seeds are begun in order, so all before the first that broke were played to their end.
    let first = summary.violations.into_iter().next();
    let (after, violation) = first.map_or((None, None), |(seed, violation)| (Some(seed), Some(violation)));
    Catch {
        defect: name(defect),
        after,
        checker: violation.as_ref().map(|violation| violation.property),
        seen: violation.map(|violation| violation.seen),
    }
}
