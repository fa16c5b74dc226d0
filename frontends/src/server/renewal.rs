//! Certificates that are renewed while the node runs.
//!
//! 1. On SIGHUP, and now and then without, the files that the node's certificate came from are read again.
//! 2. What differs from what is in use, and holds every test, is shown on connections made from then on. Those that stand
//!    are not touched.
//! 3. What does not hold leaves the old certificate in use, and says so: with its code in the log, and in a metric.
//!
//! Certificate and key are two files, so a look may fall between the replacing of the one and of the other. By itself
//! the node therefore complains only about what it finds twice; to SIGHUP it answers at once.

use std::sync::Arc;
use std::time::Duration;

use tidelog_engine::storage::Storage;
use tidelog_tls::Credentials;
use tidelog_wire::ids::NodeId;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::credentials::{self, PemPaths};
use super::error::ServerError;
use crate::broker::Broker;
use crate::clock;

/// Time between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What is needed to look.
pub(super) struct Renewal {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) paths: PemPaths,
    pub(super) node: NodeId,
    pub(super) credentials: Credentials,
    pub(super) broker: Arc<Broker>,
}

/// Why files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// It is time.
    ByTime,
    /// Somebody wants it.
    BySignal,
}

impl Renewal {
    /// Looks for as long as the node runs. From the call on SIGHUP no longer ends the process.
    pub(super) fn start(self) -> Result<tokio::task::JoinHandle<()>, ServerError> {
        let hangup = signal(SignalKind::hangup())
            .map_err(|source| ServerError::System { action: "listen for signals", source })?;
        Ok(tokio::spawn(self.run(hangup)))
    }

    async fn run(self, mut hangup: Signal) {
        let mut complaint = None;
        while !self.broker.is_stopping() {
            let asked = tokio::select! {
                _ = hangup.recv() => Asked::BySignal,
                () = tokio::time::sleep(LOOK_EVERY) => Asked::ByTime,
            };
            complaint = self.look(asked, complaint);
        }
    }

    /// One look; gives what there is to complain about.
    fn look(&self, asked: Asked, before: Option<Complaint>) -> Option<Complaint> {
        let newer = credentials::load(self.storage.as_ref(), &self.paths, self.node);
        let renewed = newer.and_then(|newer| Ok(self.credentials.renew(&newer, clock::wall())?));
        let path = self.paths.cert.display();
        match renewed {
            Ok(true) => {
                self.broker.counts().certificate_renewals.add(1);
                let expires = self.credentials.expires().map_or(-1, |end| end.get() / 1000);
                tracing::info!(%path, expires, "the certificate was renewed: new connections show it");
                None
            }
            Ok(false) => {
                if asked == Asked::BySignal {
                    tracing::info!(%path, "the certificate in use is the one in the file");
                }
                None
            }
            Err(error) => {
                let text = error.to_string();
                let times = before.filter(|before| before.text == text).map_or(1, |before| before.times + 1);
                if asked == Asked::BySignal || times == 2 {
                    self.broker.counts().certificate_refusals.add(1);
                    tracing::error!("{text}; the certificate in use stays in use");
                }
                Some(Complaint { text, times })
            }
        }
    }
}

/// What was wrong with the files, and in how many looks in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Complaint {
    text: String,
    times: u64,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidelog_consensus::metrics::NodeMetrics;
    use tidelog_engine::os::OsStorage;
    use tidelog_engine::storage::replace_file;
    use tidelog_tls::{Authority, PemPair};
    use tidelog_wire::ids::ClusterId;

    use super::*;
    use crate::broker::Limits;

    struct Scene {
        folder: tempfile::TempDir,
        authority: Authority,
        renewal: Renewal,
    }

    fn write(folder: &Path, pair: &PemPair) {
        replace_file(&OsStorage, &folder.join("n.pem"), pair.cert.as_bytes()).unwrap();
        replace_file(&OsStorage, &folder.join("n.key"), pair.key.as_bytes()).unwrap();
    }

    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(ClusterId(7)).unwrap();
        let path = folder.path();
        replace_file(&OsStorage, &path.join("ca.pem"), authority.cert_pem().as_bytes()).unwrap();
        write(path, &authority.issue_node(NodeId(0)).unwrap());
        let paths = PemPaths { ca: path.join("ca.pem"), cert: path.join("n.pem"), key: path.join("n.key") };
        let limits = Limits {
            batch_bytes: 1,
            fetch_bytes: 1,
            fetch_wait: Duration::ZERO,
            request: Duration::ZERO,
            segment_bytes: 1,
        };
        let renewal = Renewal {
            storage: Arc::new(OsStorage),
            credentials: credentials::load(&OsStorage, &paths, NodeId(0)).unwrap(),
            paths,
            node: NodeId(0),
            broker: Arc::new(Broker::new(NodeId(0), limits, Arc::new(NodeMetrics::default()))),
        };
        Scene { folder, authority, renewal }
    }

    #[test]
    fn a_new_certificate_is_taken_and_a_broken_one_leaves_the_old_in_use() {
        let Scene { folder, authority, renewal } = scene();
        let counts = renewal.broker.counts();
        assert_eq!(renewal.look(Asked::BySignal, None), None);
        assert_eq!(counts.certificate_renewals.value(), 0);

        let end = tidelog_wire::ids::TimestampMs(clock::wall().get() / 1000 * 1000 + 3_600_000);
        let authority = authority.expiring(end);
        write(folder.path(), &authority.issue_node(NodeId(0)).unwrap());
        assert_eq!(renewal.look(Asked::ByTime, None), None);
        assert_eq!((counts.certificate_renewals.value(), renewal.credentials.expires()), (1, Some(end)));

        // Another node's: found once, it may be half of a pair; found twice, it is complained about.
        write(folder.path(), &authority.issue_node(NodeId(1)).unwrap());
        let once = renewal.look(Asked::ByTime, None);
        assert_eq!(counts.certificate_refusals.value(), 0);
        let twice = renewal.look(Asked::ByTime, once);
        assert_eq!(counts.certificate_refusals.value(), 1);
        let text = twice.clone().map(|complaint| complaint.text).unwrap_or_default();
        assert!(text.starts_with("E2211"), "{text}");
        let thrice = renewal.look(Asked::ByTime, twice);
        assert_eq!(counts.certificate_refusals.value(), 1, "said once, not every half minute");
        renewal.look(Asked::BySignal, thrice);
        assert_eq!(counts.certificate_refusals.value(), 2, "a signal is always answered");
        assert_eq!(renewal.credentials.expires(), Some(end), "the old one stays");
    }
}
