//! The numbers of commands, as they stand in byte 2 of an entry's context. Never renumbered.

/// Which command an entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Append,
    OpenLogs,
    CloseLogs,
    SetLogStart,
    ExpireProducers,
    SetCursor,
    DeleteCursor,
    RaiseApplyVersion,
    Meta(MetaKind),
}

/// Which change of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetaKind {
    RegisterNode,
    CreateChannels,
    ReportLogs,
    DeleteChannels,
    ReportMembers,
    MintProducer,
    JoinNode,
    DrainNode,
    ForgetNode,
    CreateGroup,
    PlaceReplica,
    RetireReplica,
    ReplaceReplica,
}

impl Kind {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Append => 1,
            Self::OpenLogs => 2,
            Self::CloseLogs => 3,
            Self::SetLogStart => 4,
            Self::ExpireProducers => 5,
            Self::SetCursor => 6,
            Self::DeleteCursor => 7,
            Self::RaiseApplyVersion => 8,
            Self::Meta(kind) => kind.number(),
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Append),
            2 => Some(Self::OpenLogs),
            3 => Some(Self::CloseLogs),
            4 => Some(Self::SetLogStart),
            5 => Some(Self::ExpireProducers),
            6 => Some(Self::SetCursor),
            7 => Some(Self::DeleteCursor),
            8 => Some(Self::RaiseApplyVersion),
            _ => MetaKind::from_number(number).map(Self::Meta),
        }
    }
}

impl MetaKind {
    const fn number(self) -> u8 {
        match self {
            Self::RegisterNode => 16,
            Self::CreateChannels => 17,
            Self::ReportLogs => 18,
            Self::DeleteChannels => 19,
            Self::ReportMembers => 20,
            Self::MintProducer => 21,
            Self::JoinNode => 22,
            Self::DrainNode => 23,
            Self::ForgetNode => 24,
            Self::CreateGroup => 25,
            Self::PlaceReplica => 26,
            Self::RetireReplica => 27,
            Self::ReplaceReplica => 28,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            16 => Some(Self::RegisterNode),
            17 => Some(Self::CreateChannels),
            18 => Some(Self::ReportLogs),
            19 => Some(Self::DeleteChannels),
            20 => Some(Self::ReportMembers),
            21 => Some(Self::MintProducer),
            22 => Some(Self::JoinNode),
            23 => Some(Self::DrainNode),
            24 => Some(Self::ForgetNode),
            25 => Some(Self::CreateGroup),
            26 => Some(Self::PlaceReplica),
            27 => Some(Self::RetireReplica),
            28 => Some(Self::ReplaceReplica),
            _ => None,
        }
    }
}
