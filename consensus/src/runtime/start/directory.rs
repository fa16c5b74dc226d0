//! The data directory before anything in it is used: whose it is, formatted if it may be, and given a new life if it must.
//!
//! **A new life** is what a directory gets whose old one cannot be trusted, because it is an old copy of itself, or
//! belongs to a cluster that is given up. In this order, so that a crash anywhere is harmless:
//! 1. The raft log and the votes go to quarantine: from here on no replica can be vouched for. So do the meta group's
//!    checkpoints, whose catalogue is that of the old life. If the whole state is given up, all checkpoints and logs go with
//!    them; else they stay for the snapshots to come.
//! 2. The directory gets a new incarnation. Whatever anybody knows of the old one is no longer about this node.
//!
//! Not here: what is in the directory (`super::recover`), and asking to be let in again (`crate::runtime::membership`).

use std::io::ErrorKind;
use std::path::Path;

use tidelog_engine::identity::{Identity, IdentityError};
use tidelog_engine::storage::{Storage, parent};
use tidelog_engine::{Engine, NewIdentity, OpenError};
use tidelog_wire::ids::{GroupId, Incarnation};

use super::recover::engine_options;
use crate::runtime::config::{GivenUp, NodeConfig, Start, StartError};

/// Formats a new directory if asked to; else makes sure that it is this node's.
pub(super) fn prepare(config: &NodeConfig, notes: &mut Vec<String>) -> Result<(), StartError> {
    let found = match (Identity::read(config.storage.as_ref(), &config.data_dir), &config.start) {
        (Ok(opened), _) => opened.identity,
        (Err(IdentityError::Missing { .. }), Start::Bootstrap { voters }) => {
            let mut distinct = voters.clone();
            distinct.sort_unstable();
            distinct.dedup();
            if distinct.len() != voters.len() || !voters.contains(&config.node) {
                return Err(StartError::BadVoters { voters: voters.clone(), node: config.node });
            }
            return format(config);
        }
        (Err(IdentityError::Missing { .. }), Start::Join | Start::Rejoin { .. }) => return format(config),
        (Err(error), _) => return Err(error.into()),
    };
    if found.cluster != config.cluster || found.node != config.node {
        return Err(StartError::Foreign {
            dir: config.data_dir.clone(),
            node: config.node,
            cluster: config.cluster,
            found_node: found.node,
            found_cluster: found.cluster,
        });
    }
    match &config.start {
        Start::Rejoin { given_up } if found.incarnation != config.incarnation => {
            renew(config, found.incarnation, *given_up, notes)
        }
        Start::Resume | Start::Bootstrap { .. } | Start::Join | Start::Rejoin { .. } => Ok(()),
    }
}

fn format(config: &NodeConfig) -> Result<(), StartError> {
    let (cluster, node, incarnation) = (config.cluster, config.node, config.incarnation);
    Engine::format(&config.storage, &config.data_dir, NewIdentity { cluster, node, incarnation })?;
    Ok(())
}

fn renew(
    config: &NodeConfig,
    before: Incarnation,
    given_up: GivenUp,
    notes: &mut Vec<String>,
) -> Result<(), StartError> {
    let meta = format!("checkpoints/{}", GroupId::META);
    let names: &[&str] = match given_up {
        GivenUp::Promises => &["raft", "votes", &meta],
        GivenUp::Everything => &["raft", "votes", "checkpoints", "logs"],
    };
    let incarnation = config.incarnation;
    let engine = Engine::open(config.storage.clone(), &config.data_dir, engine_options(config))?;
    let why = format!("incarnation {before} of this directory was given up; it joins anew as {incarnation}");
    for name in names {
        let path = config.data_dir.join(name);
        if is_there(config.storage.as_ref(), &path)? {
            let aside = engine.set_aside(&path, &why)?;
            notes.push(format!("{name} was set aside as {}", aside.piece.display()));
        }
    }
    drop(engine);
    Engine::renew(config.storage.as_ref(), &config.data_dir, incarnation)?;
    notes.push(why);
    Ok(())
}

fn is_there(storage: &dyn Storage, path: &Path) -> Result<bool, StartError> {
    let dir = parent(path);
    match storage.list(dir) {
        Ok(entries) => Ok(entries.iter().any(|entry| path.ends_with(&entry.name))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => {
            let (path, action) = (dir.to_path_buf(), "list");
            Err(StartError::Engine(OpenError::Io { path, action, source }))
        }
    }
}
