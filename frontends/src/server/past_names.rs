//! Which name a generation bore, so that a client that still asks for it can be told the name's present generation.
//!
//! The catalogue forgets a deleted generation. This node remembers the names of those it has seen itself, up to a
//! limit, the newest. Forgotten ones cost only a less telling error: that the generation is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tidelog_consensus::apply::Catalogue;
use tidelog_wire::ids::Generation;

/// Most generations that are remembered.
const GENERATIONS_MAX: usize = 20_000;

/// Names by generation.
#[derive(Debug, Default)]
pub(super) struct PastNames {
    names: Mutex<BTreeMap<Generation, String>>,
}

impl PastNames {
    /// Remembers the names of all channels that are new since the last call.
    pub(super) fn note(&self, catalogue: &Catalogue) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = names.last_key_value().map(|(generation, _)| *generation);
        for channel in catalogue.channels().filter(|channel| Some(channel.generation) > newest) {
            names.insert(channel.generation, channel.name.clone());
        }
        while names.len() > GENERATIONS_MAX {
            names.pop_first();
        }
    }

    /// The generation that bears the name of `gone` now.
    pub(super) fn successor(&self, catalogue: &Catalogue, gone: Generation) -> Option<Generation> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        catalogue.channel(names.get(&gone)?).map(|channel| channel.generation)
    }
}

#[cfg(test)]
mod tests {
    use tidelog_consensus::entry::MetaCommand;
    use tidelog_consensus::outcome::Outcome;
    use tidelog_wire::ids::{ChannelUuid, GroupId, LeaderEpoch};

    use super::*;

    fn create(catalogue: &mut Catalogue, uuid: u128) -> Generation {
        let outcome = catalogue.apply(MetaCommand::CreateChannel {
            name: "orders".to_owned(),
            uuid: ChannelUuid(uuid),
            partitions: 1,
            replicas: None,
            segment_bytes: 1 << 20,
        });
        let Outcome::ChannelCreated { generation } = outcome else { panic!("{outcome:?}") };
        generation
    }

    #[test]
    fn a_deleted_generation_leads_to_the_one_that_bears_its_name_now() {
        let (mut catalogue, past) = (Catalogue::genesis(vec![GroupId(1)], 1), PastNames::default());
        let first = create(&mut catalogue, 1);
        past.note(&catalogue);
        catalogue.apply(MetaCommand::MarkActive { generation: first });
        catalogue.apply(MetaCommand::DeleteChannel { generation: first });
        catalogue.apply(MetaCommand::MarkDeleted { generation: first, last_epoch: LeaderEpoch(1) });
        past.note(&catalogue);
        assert_eq!(past.successor(&catalogue, first), None, "nobody bears the name");
        let second = create(&mut catalogue, 2);
        past.note(&catalogue);
        assert_eq!(past.successor(&catalogue, first), Some(second));
        assert_eq!(past.successor(&catalogue, Generation(99)), None);
    }
}
