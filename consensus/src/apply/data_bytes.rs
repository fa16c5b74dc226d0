//! A data group's machine as it lies in a checkpoint, but for its logs, which the checkpoint keeps itself.

use super::catalogue_bytes::STATE_VERSION;
use super::closed::ClosedGenerations;
use super::cursors::{CursorsByLog, read_cursors, write_cursors};
use crate::entry::{FieldReader, FieldWriter, MalformedField};

/// Says in a checkpoint that the state is a data machine's.
const KIND_DATA: u8 = 2;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DataState {
    pub(super) closed: ClosedGenerations,
    pub(super) cursors: CursorsByLog,
}

impl DataState {
    /// That of a machine that has done nothing yet.
    pub(super) const fn genesis() -> Self {
        Self { closed: ClosedGenerations::new(), cursors: CursorsByLog::new() }
    }

    /// Its bytes, little-endian; texts and lists as in [`crate::entry::encode`].
    ///
    /// | field             | size | meaning                                                    |
    /// |-------------------|-----:|------------------------------------------------------------|
    /// | `version`         |    2 | 1; a reader refuses every value it does not know           |
    /// | `kind`            |    1 | 2, a data machine                                          |
    /// | reserved          |    1 | zero, enforced                                             |
    /// | `forgotten_to`    |    8 | generations up to here are closed unless their logs are open |
    /// | `forgotten_epoch` |    4 | highest last leader epoch among them                       |
    /// | `closed`          | list | generation (8), last leader epoch (4), ascending           |
    /// | `cursors`         | list | log: generation (8), partition (4); text name, offset (8); ascending by log and name |
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = FieldWriter::new();
        out.u16(STATE_VERSION).u8(KIND_DATA).u8(0);
        self.closed.write(&mut out);
        write_cursors(&mut out, &self.cursors);
        out.into_bytes()
    }

    /// The reverse of [`DataState::encode`].
    pub(super) fn decode(state: &[u8]) -> Result<Self, MalformedField> {
        let mut from = FieldReader::new(state);
        if from.u16("version")? != STATE_VERSION {
            return Err(MalformedField { field: "version", problem: "not one that this release reads" });
        }
        if from.u8("kind")? != KIND_DATA {
            return Err(MalformedField { field: "kind", problem: "not a data machine" });
        }
        from.zero("reserved")?;
        let closed = ClosedGenerations::read(&mut from)?;
        let cursors = read_cursors(&mut from)?;
        from.end()?;
        Ok(Self { closed, cursors })
    }
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{Generation, LeaderEpoch, LogId, Offset, Partition};

    use super::*;

    #[test]
    fn format_1_data_machine_bytes_never_change() {
        let golden = include_bytes!("../../testdata/format-1/data-machine.bin");
        let mut state = DataState::genesis();
        state.closed.close(Generation(3), LeaderEpoch(17));
        state.closed.close(Generation(9), LeaderEpoch(0));
        let log = LogId { generation: Generation(4), partition: Partition(1) };
        let cursors = [("audit".to_owned(), Offset(0)), ("billing".to_owned(), Offset(77))];
        state.cursors.insert(log, cursors.into());
        assert_eq!(state.encode(), golden);
        assert_eq!(DataState::decode(golden), Ok(state));
    }

    /// Another version, another kind, a reserved byte, a byte too many or too few: refused by name.
    #[test]
    fn data_machine_bytes_that_are_not_ours_are_refused() {
        let golden = DataState::genesis().encode();
        for at in 0..4 {
            let mut bytes = golden.clone();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = 7;
            }
            assert!(DataState::decode(&bytes).is_err(), "byte {at}");
        }
        assert!(DataState::decode(&[golden.as_slice(), &[0]].concat()).is_err());
        assert!(DataState::decode(golden.split_last().map_or(&[], |(_, rest)| rest)).is_err());
    }
}
