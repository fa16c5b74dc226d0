//! The cluster that a profile names, for the online commands.

use std::path::Path;
use std::time::Duration;

use tidelog_client::{Client, ClientOptions, Profile};

use crate::error::CliError;

/// How patient a command is with nodes that do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Waits out an election, or a node that starts.
    Work,
    /// Tells what is there now: a node that is silent is told as silent.
    Look,
}

/// A client of the cluster that `profile` names. Connects when it is first used.
pub(crate) fn connect(profile: Option<&Path>, patience: Patience) -> Result<Client, CliError> {
    let profile = Profile::load(profile.ok_or(CliError::NoProfile)?)?;
    let name = concat!("tidelog ", env!("CARGO_PKG_VERSION")).to_owned();
    let options = match patience {
        Patience::Work => ClientOptions { name, ..ClientOptions::default() },
        Patience::Look => ClientOptions {
            name,
            connect_timeout: Duration::from_millis(500),
            request_timeout: Duration::from_secs(2),
            ..ClientOptions::default()
        },
    };
    Ok(Client::new(profile, options)?)
}
