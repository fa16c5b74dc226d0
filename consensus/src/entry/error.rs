//! Why an entry cannot be read, with its place.

use tidelog_wire::ids::{GroupId, RaftIndex, Term};

use super::MalformedField;

/// Why an entry cannot be read. Apply stops at it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Written by a release that this one does not know.
    #[error(
        "E1250 group {group}, entry {index} of term {term}: entry version {found}, this release reads {expected}; \
         apply has stopped there: run a release that knows the version"
    )]
    UnknownVersion {
        /// The group.
        group: GroupId,
        /// The entry.
        index: RaftIndex,
        /// Its term.
        term: Term,
        /// Version in the entry.
        found: u16,
        /// Version this release reads.
        expected: u16,
    },
    /// A command that this release does not know.
    #[error(
        "E1251 group {group}, entry {index} of term {term}: unknown command kind {found}; apply has stopped there: \
         run a release that knows the command"
    )]
    UnknownKind {
        /// The group.
        group: GroupId,
        /// The entry.
        index: RaftIndex,
        /// Its term.
        term: Term,
        /// Kind in the entry.
        found: u8,
    },
    /// The bytes do not make a command.
    #[error(
        "E1252 group {group}, entry {index} of term {term}: {what}; apply has stopped there: keep the data \
         directory, compare the entry with the other replicas', and report it"
    )]
    Malformed {
        /// The group.
        group: GroupId,
        /// The entry.
        index: RaftIndex,
        /// Its term.
        term: Term,
        /// What is wrong with it.
        what: MalformedField,
    },
}
