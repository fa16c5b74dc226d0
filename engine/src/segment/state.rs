//! The life of a segment, as data.

/// Where a segment is in its life.
///
/// ```text
/// Active --Filled--> Sealing --Synced--> Sealed
///   '---SyncFailed----'--SyncFailed--> Fenced
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// Takes appends. At most one in a log, always the last.
    Active,
    /// Full: index and footer are written and not yet synced. Takes no appends.
    Sealing,
    /// Durable and immutable. Only now may it be backed up, compacted or deleted.
    Sealed,
    /// A write or sync failed, so what is on disk is unknown. A retried sync may lie; only recovery helps.
    Fenced,
}

/// What can happen to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentEvent {
    /// The next frame does not fit: index and footer were written.
    Filled,
    /// Everything written to it is durable.
    Synced,
    /// A write or a sync failed.
    SyncFailed,
}

impl SegmentState {
    /// The state after `event`, or `None` if `event` cannot happen here (a bug in the caller).
    #[must_use]
    pub const fn after(self, event: SegmentEvent) -> Option<Self> {
        use {SegmentEvent as E, SegmentState as S};
        match (self, event) {
            (S::Active, E::Filled) => Some(S::Sealing),
            (S::Active, E::Synced) => Some(S::Active),
            (S::Sealing, E::Synced) => Some(S::Sealed),
            (S::Active | S::Sealing, E::SyncFailed) => Some(S::Fenced),
            (S::Sealing, E::Filled) | (S::Sealed | S::Fenced, E::Filled | E::Synced | E::SyncFailed) => None,
        }
    }

    /// Whether the segment can still change.
    #[must_use]
    pub const fn is_immutable(self) -> bool {
        match self {
            Self::Sealed => true,
            Self::Active | Self::Sealing | Self::Fenced => false,
        }
    }
}
