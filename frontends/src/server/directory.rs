//! Whether a data directory may be used, and how: decided before anything in it is touched.
//!
//! | flag | configuration | directory | verdict |
//! |---|---|---|---|
//! | `--rejoin` | speaks of a cluster | either | set aside what is in it, then join |
//! | `--join` | speaks of a cluster | either | join |
//! | `--bootstrap` | any | either | bootstrap |
//! | none | bare | either | bootstrap: a cluster of one |
//! | none | speaks of a cluster | formatted | resume |
//! | none | speaks of a cluster | not formatted | refused: E2210 |
//! | `--join` or `--rejoin` | names no other node | either | refused: E2213 |
//!
//! To bootstrap or to join with a formatted directory finishes what a crash interrupted, and else resumes it: both flags
//! may stay where they are. `--rejoin` is for once.
//!
//! So a node that lost its directory can never found a second cluster by being started again. If it was bootstrapped once
//! more all the same, its peers know better: it is a guest, and joins them with a new life by itself. That a formatted
//! directory belongs to this node and this cluster is checked where it is opened (`tidelog_consensus::runtime`).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tidelog_consensus::runtime::{GivenUp, Start};
use tidelog_engine::identity::{Identity, IdentityError};
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, NewIdentity};
use tidelog_wire::ids::{ClusterId, Incarnation, NodeId};

use super::error::ServerError;
use crate::config::{Configuration, Founding};

/// Who the directory belongs to; `None` if it is not formatted. Changes nothing.
pub(super) fn owner(storage: &dyn Storage, data_dir: &Path) -> Result<Option<Identity>, ServerError> {
    match Identity::read(storage, data_dir) {
        Ok(opened) => Ok(Some(opened.identity)),
        Err(IdentityError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Formats the directory of a cluster of one, and returns the cluster's new id.
pub(super) fn format(
    storage: &Arc<dyn Storage>,
    data_dir: &Path,
    node: NodeId,
) -> Result<ClusterId, ServerError> {
    let cluster = ClusterId(super::random()?);
    let new = NewIdentity { cluster, node, incarnation: Incarnation(super::random()?) };
    Engine::format(storage, data_dir, new)?;
    Ok(cluster)
}

/// How to start, by the table above.
pub(super) fn decide(
    configuration: &Configuration,
    founding: Founding,
    owner: Option<Identity>,
) -> Result<Start, ServerError> {
    let settings = &configuration.settings;
    let wanted = match founding {
        Founding::Join => Some(Start::Join),
        Founding::Rejoin => Some(Start::Rejoin { given_up: GivenUp::Everything }),
        Founding::Bootstrap | Founding::Resume => None,
    };
    if let Some(start) = wanted {
        return match configuration.has_other_peers() {
            true => Ok(start),
            false => Err(ServerError::NobodyToJoin),
        };
    }
    if founding == Founding::Bootstrap || configuration.is_bare() {
        let voters: BTreeSet<_> = settings.peers.keys().copied().chain([NodeId(settings.node)]).collect();
        return Ok(Start::Bootstrap { voters: voters.into_iter().collect() });
    }
    match owner {
        Some(_) => Ok(Start::Resume),
        None => Err(ServerError::NotFormatted { path: settings.data_dir.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use tidelog_wire::ids::BootEpoch;

    use super::*;
    use crate::config::{Invocation, load};

    fn configuration(flags: &[&str]) -> Configuration {
        let arguments = flags.iter().map(OsString::from);
        let loaded = load(arguments, std::iter::empty(), |_| Ok(String::new())).unwrap();
        let Invocation::Run { configuration, .. } = loaded else { panic!("a run was asked for") };
        *configuration
    }

    const IDENTITY: Identity = Identity {
        cluster: ClusterId(1),
        incarnation: Incarnation(2),
        node: NodeId(0),
        boot_epoch: BootEpoch(3),
    };

    const MEMBER: [&str; 8] = [
        "--tls-ca",
        "ca",
        "--tls-cert",
        "c",
        "--tls-key",
        "k",
        "--peers",
        "0=127.0.0.1:7401,1=127.0.0.1:7411",
    ];

    fn voters(start: &Start) -> &[NodeId] {
        match start {
            Start::Bootstrap { voters, .. } => voters,
            Start::Resume | Start::Join | Start::Rejoin { .. } => panic!("a bootstrap was expected"),
        }
    }

    #[test]
    fn every_row_of_the_table_holds() {
        let (bare, member) = (configuration(&[]), configuration(&MEMBER));
        for owner in [None, Some(IDENTITY)] {
            let bootstrapped = |configuration, founding| decide(configuration, founding, owner).unwrap();
            assert_eq!(voters(&bootstrapped(&member, Founding::Bootstrap)), [NodeId(0), NodeId(1)]);
            assert_eq!(voters(&bootstrapped(&bare, Founding::Bootstrap)), [NodeId(0)]);
            assert_eq!(voters(&bootstrapped(&bare, Founding::Resume)), [NodeId(0)]);
            assert_eq!(bootstrapped(&member, Founding::Join), Start::Join);
            let everything = Start::Rejoin { given_up: GivenUp::Everything };
            assert_eq!(bootstrapped(&member, Founding::Rejoin), everything);
            for founding in [Founding::Join, Founding::Rejoin] {
                let error = decide(&bare, founding, owner).unwrap_err();
                assert!(error.to_string().starts_with("E2213"), "{error}");
            }
        }
        assert_eq!(decide(&member, Founding::Resume, Some(IDENTITY)).unwrap(), Start::Resume);
        let error = decide(&member, Founding::Resume, None).unwrap_err();
        assert!(error.to_string().starts_with("E2210"), "{error}");
    }
}
