//! Recovery of embedded logs.
use std::sync::Arc;

use super::{Recovered, recover_under_consensus};
use crate::checkpoint::LogState;
use crate::core::Core;
use crate::log::error::LogError;

pub(crate) fn recover_embedded(
    core: &Arc<Core>,
    id: tidelog_wire::ids::LogId,
    state: &LogState,
) -> Result<Recovered, LogError> {
    recover_under_consensus(core, id, state)
}
