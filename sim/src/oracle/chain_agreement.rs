//! **Chain agreement**: at one offset of one log there is one chain, on every node, in every answer and for ever.
//!
//! The chain is the hash of a log's whole history, so two replicas with equal chains hold equal records; it is how
//! this project proves replicas, imports and restores equal (ARCHITECTURE.md). It is told chains from three places:
//! acknowledgements, readers, and frames in segment files, whose chain it computes again from the bytes.

use std::collections::BTreeMap;

use tidelog_wire::ids::{Chain, LogId, Offset};

use super::Violation;

/// Chains by the offset behind the batch.
#[derive(Debug, Default)]
pub struct ChainAgreement {
    chains: BTreeMap<LogId, BTreeMap<Offset, (Chain, String)>>,
}

impl ChainAgreement {
    /// The chain of `log` up to `end` is `chain`, says `who`.
    ///
    /// # Errors
    /// Somebody said otherwise.
    pub fn is(
        &mut self,
        log: LogId,
        end: Offset,
        chain: Chain,
        who: impl FnOnce() -> String,
    ) -> Result<(), Violation> {
        let chains = self.chains.entry(log).or_default();
        if let Some((known, said)) = chains.get(&end) {
            if *known == chain {
                return Ok(());
            }
            let who = who();
            return Err(Violation::of(
                "chain agreement",
                format!("log {log} up to {end}: {known} says {said}, {chain} says {who}"),
            ));
        }
        chains.insert(end, (chain, who()));
        Ok(())
    }

    /// A frame in a file says that the chain is `said`; its bytes give `computed`.
    ///
    /// # Errors
    /// They differ.
    pub fn computes(
        log: LogId,
        end: Offset,
        said: Chain,
        computed: Chain,
        place: &str,
    ) -> Result<(), Violation> {
        if said == computed {
            return Ok(());
        }
        Err(Violation::of(
            "chain agreement",
            format!("log {log} up to {end}: {place} says {said}, its bytes give {computed}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{Generation, Partition};

    use super::*;

    const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

    #[test]
    fn two_chains_at_one_offset_are_a_violation() {
        let mut checker = ChainAgreement::default();
        let mut is = |end, chain| checker.is(LOG, Offset(end), Chain(chain), || "a test".to_owned());
        assert_eq!(is(4, 1), Ok(()));
        assert_eq!(is(4, 1), Ok(()));
        assert_eq!(is(5, 2), Ok(()));
        assert!(is(4, 2).is_err());
        assert!(ChainAgreement::computes(LOG, Offset(4), Chain(1), Chain(2), "a test").is_err());
    }
}
