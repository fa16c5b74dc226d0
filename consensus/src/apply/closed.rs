//! The generations whose logs a group has closed for ever.
//!
//! An `OpenLogs` that was proposed before a deletion may be applied after it, and must not bring the
//! logs back. So closed generations are remembered, each with the highest leader epoch that its logs can
//! have stamped, which the name's next life must exceed.
//!
//! The memory is bounded. Generations only rise, and a channel is opened long before ten thousand others
//! are deleted; so beyond [`CLOSED_MAX`] the lowest generation is forgotten and everything up to it
//! counts as closed from then on, except the logs that are open.

use std::collections::BTreeMap;

use tidelog_wire::ids::{Generation, LeaderEpoch};

use super::catalogue_bytes::ascending;
use crate::entry::{FieldReader, FieldWriter, MalformedField};

/// Generations remembered one by one.
pub(super) const CLOSED_MAX: usize = 10_000;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClosedGenerations {
    last_epochs: BTreeMap<Generation, LeaderEpoch>,
    /// Everything up to here is closed unless its logs are open.
    forgotten_to: Generation,
    /// Highest last epoch among the forgotten.
    forgotten_epoch: LeaderEpoch,
}

impl ClosedGenerations {
    pub(super) const fn new() -> Self {
        Self { last_epochs: BTreeMap::new(), forgotten_to: Generation(0), forgotten_epoch: LeaderEpoch(0) }
    }

    /// Remembers a generation; a known one stays as it is.
    pub(super) fn close(&mut self, generation: Generation, last_epoch: LeaderEpoch) {
        self.last_epochs.entry(generation).or_insert(last_epoch);
        while self.last_epochs.len() > CLOSED_MAX {
            let Some((generation, last_epoch)) = self.last_epochs.pop_first() else { return };
            self.forgotten_to = self.forgotten_to.max(generation);
            self.forgotten_epoch = self.forgotten_epoch.max(last_epoch);
        }
    }

    /// The generation's last leader epoch, if it is closed. The caller knows whether its logs are open.
    pub(super) fn last_epoch(&self, generation: Generation) -> Option<LeaderEpoch> {
        let forgotten = (generation <= self.forgotten_to).then_some(self.forgotten_epoch);
        self.last_epochs.get(&generation).copied().or(forgotten)
    }

    /// Part of a data machine's state; see [`super::data::DataMachine::encode`].
    pub(super) fn write(&self, out: &mut FieldWriter) {
        out.u64(self.forgotten_to.get()).i32(self.forgotten_epoch.get());
        let closed: Vec<_> = self.last_epochs.iter().collect();
        out.list(&closed, CLOSED_MAX, |out, (generation, last_epoch)| {
            out.u64(generation.get()).i32(last_epoch.get());
        });
    }

    pub(super) fn read(from: &mut FieldReader<'_>) -> Result<Self, MalformedField> {
        let forgotten_to = from.generation()?;
        let forgotten_epoch = LeaderEpoch(from.i32("forgotten_epoch")?);
        let closed = from.list("closed", CLOSED_MAX, 12, |from| {
            Ok((from.generation()?, LeaderEpoch(from.i32("last_epoch")?)))
        })?;
        ascending("closed", closed.iter().map(|(generation, _)| *generation))?;
        Ok(Self { last_epochs: closed.into_iter().collect(), forgotten_to, forgotten_epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory stays bounded, and what it lets go still counts as closed, with an epoch high enough.
    #[test]
    fn forgotten_generations_stay_closed() {
        let mut closed = ClosedGenerations::new();
        for generation in 1..=u64::try_from(CLOSED_MAX).unwrap() + 3 {
            let epoch = if generation == 2 { 900 } else { 7 };
            closed.close(Generation(generation), LeaderEpoch(epoch));
        }
        assert_eq!(closed.last_epochs.len(), CLOSED_MAX);
        for generation in 1..=3 {
            assert_eq!(closed.last_epoch(Generation(generation)), Some(LeaderEpoch(900)));
        }
        assert_eq!(closed.last_epoch(Generation(4)), Some(LeaderEpoch(7)));
        assert_eq!(closed.last_epoch(Generation(1_000_000)), None);
    }
}
