//! What can go wrong in the command line itself. What a node or the client library reports keeps its own code.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tidelog_consensus::recover::RecoverError;
use tidelog_engine::offline::OfflineError;
use tidelog_engine::offline::repair::RepairError;
use tidelog_wire::ids::{GroupId, LogId, NodeId, Offset};

use crate::produce::input::InputError;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// No profile was named.
    #[error(
        "E3201 no cluster is named: give --profile FILE or set TIDELOG_PROFILE; \
         `tidelog up --dir D` makes a cluster and writes D/client.toml"
    )]
    NoProfile,
    /// A file or folder could not be used.
    #[error("E3202 {}: cannot {action}: {source}; see to the path and its rights, then repeat the command", path.display())]
    File { path: PathBuf, action: &'static str, source: io::Error },
    /// A file of the cluster's directory is not what this command writes.
    #[error(
        "E3203 {}: {what}; it was changed by hand or by another version: restore it, or make a cluster in a new directory",
        path.display()
    )]
    Layout { path: PathBuf, what: String },
    /// The server program was not found.
    #[error("E3204 {}: no tidelogd here: build it (`cargo build --bins`), or name it with --tidelogd FILE", path.display())]
    NoServer { path: PathBuf },
    /// A node's process ended before the node was ready.
    #[error(
        "E3205 node {node} ended before it was ready; the end of {} says: {last_lines}; \
         mend that, then run `tidelog up` again", log.display()
    )]
    NodeEnded { node: u64, log: PathBuf, last_lines: String },
    /// The cluster was not ready in time.
    #[error(
        "E3206 not ready after {seconds} s: {waiting_for}; the nodes still run: look into their logs, \
         or run `tidelog up` again with a longer --wait-seconds"
    )]
    NotReady { seconds: u64, waiting_for: String },
    /// The directory holds a cluster of another shape than asked for.
    #[error(
        "E3207 {}: this cluster has {key} {found}, not {asked}; leave --{key} out, or use another directory", dir.display()
    )]
    OtherShape { dir: PathBuf, key: &'static str, found: String, asked: String },
    /// No free block of ports.
    #[error("E3208 no {count} ports in a row are free between {first} and {last}; give --base-port P")]
    NoPorts { count: u64, first: u16, last: u16 },
    /// Nodes did not stop in time.
    #[error(
        "E3209 still running after {seconds} s: {nodes}; wait and repeat `tidelog down`, or kill them with --force, \
         which loses nothing that was acknowledged"
    )]
    StillRunning { seconds: u64, nodes: String },
    /// Another command works on the directory.
    #[error("E3210 {}: another tidelog command is at work in this directory; wait until it has ended", dir.display())]
    DirectoryBusy { dir: PathBuf },
    /// A directory without a cluster.
    #[error("E3211 {}: no cluster here: `tidelog up --dir {}` makes one", dir.display(), dir.display())]
    NoCluster { dir: PathBuf },
    /// A node number that the cluster does not have.
    #[error("E3212 there is no node {node}; the cluster has nodes {have}")]
    NoNode { node: u64, have: String },
    /// A process could not be signalled or watched.
    #[error("E3213 process {pid} of node {node}: cannot {action}: {source}; is it another user's?")]
    Process { node: u64, pid: u32, action: &'static str, source: io::Error },
    /// The server program could not be started.
    #[error("E3214 {}: cannot start it: {source}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    /// The system refused this program threads or descriptors.
    #[error("E3215 cannot begin: {source}; the limits of processes or open files are too low (`ulimit -a`)")]
    Runtime { source: io::Error },
    /// An authority would be overwritten.
    #[error(
        "E3216 {}: there is an authority already, and without its key no node can join its cluster: \
         use another folder", path.display()
    )]
    AuthorityExists { path: PathBuf },
    /// The input of `produce` or `demo` cannot be read to its end.
    #[error(
        "E3217 input: {0}; what came before it was sent: see what was acknowledged, mend the input, send the rest"
    )]
    Input(#[from] InputError),
    /// A log has records that no answer brings.
    #[error(
        "E3218 log {log}: records up to offset {end} are committed, but none come from {offset} on; nothing was \
         skipped: look at `tidelog status`, or read another replica (`--node`)"
    )]
    Stalled { log: LogId, offset: Offset, end: Offset },
    /// Somebody ended the command.
    #[error("E3219 interrupted; what was acknowledged until then is safe")]
    Interrupted,
    /// No stream for the demonstration.
    #[error(
        "E3220 no stream to show: run it from a checkout of the project, or name a text file with --data"
    )]
    NoStream,
    /// No other leader in time.
    #[error("E3221 no other node took over within {seconds} s: look into the logs of the nodes")]
    NoLeader { seconds: u64 },
    /// Replicas that are behind.
    #[error(
        "E3222 not all replicas have {records} records after {seconds} s: look into the logs of the nodes"
    )]
    NotCaughtUp { seconds: u64, records: u64 },
    /// The demonstration found a broken promise.
    #[error("E3223 a promise is broken: {broken}; keep the directory, it is the evidence")]
    PromiseBroken { broken: String },
    /// A node without the log.
    #[error("E3224 node {node} has no replica of log {log}: `tidelog status` shows which nodes have")]
    NoReplica { log: LogId, node: NodeId },
    /// Segment files are damaged.
    #[error(
        "E3225 {ranges} damaged ranges: what they hold is not served, everything else is; \
         `tidelog segment repair PATH --from COPY` says what would mend them"
    )]
    Damaged { ranges: usize },
    /// Copies of logs are not copies.
    #[error(
        "E3226 {logs} logs are not the same on both sides: find out which side is right before copying anything"
    )]
    Differ { logs: usize },
    /// Copies of which nothing can be said.
    #[error(
        "E3228 {logs} logs could not be compared: they have no offsets in common that are intact in both; \
         `tidelog segment verify` names what is damaged"
    )]
    NotCompared { logs: usize },
    /// No damage, as far as anything said what should be there.
    #[error(
        "E3229 {logs} logs were not judged in full: verify them in the data directory they come from, with its \
         checkpoints, or compare them with another copy (`tidelog segment compare`)"
    )]
    NotJudged { logs: usize },
    /// Damage that a repair leaves.
    #[error(
        "E3227 {ranges} damaged ranges stay: nothing at hand proves what was there; \
         name another copy of the log with --from"
    )]
    NotMended { ranges: usize },
    /// A partition that is not the source's copy.
    #[error(
        "E3230 log {log} is no copy of the source at offset {offset}: {why}; nothing was appended behind it: import into a \
         channel of its own, to which nobody else writes"
    )]
    NotTheSource { log: LogId, offset: Offset, why: String },
    /// A source that cannot be imported.
    #[error("E3231 {}: cannot be imported: {why}", path.display())]
    Source { path: PathBuf, why: String },
    /// A change of members that is not done yet.
    #[error(
        "E3232 not done after {seconds} s: {waiting_for}; it goes on by itself: look at `tidelog cluster status`, or repeat \
         the command to go on waiting"
    )]
    NotSettled { seconds: u64, waiting_for: String },
    /// A change of members that would cost the cluster something.
    #[error(
        "E3233 node {node} cannot be replaced now: {reason}; nothing was changed: bring the other nodes back first"
    )]
    UnsafeChange { node: u64, reason: String },
    /// No other member can lead.
    #[error(
        "E3234 group {group} has no other voter that was heard of lately; its leadership stays: see `tidelog cluster status`"
    )]
    NobodyToLead { group: GroupId },
    /// Channels that were refused.
    #[error("E3235 {refused} of {asked} channels were not created; the others were")]
    NotCreated { refused: usize, asked: usize },
    /// No such cursor.
    #[error("E3236 log {log} has no cursor `{name}`: `tidelog cursor list` shows which there are")]
    NoCursor { log: LogId, name: String },
    /// Nobody typed that it is meant.
    #[error("E3237 not confirmed; nothing was given up: type `{sentence}` when asked, or give --yes")]
    NotConfirmed { sentence: &'static str },
    /// Why a node alone was not recovered.
    #[error(transparent)]
    Recover(#[from] Box<RecoverError>),
    /// What the segments' own library says.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// Why a repair was not done.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// What the client library says.
    #[error(transparent)]
    Client(#[from] tidelog_client::ClientError),
    /// What the certificates' own library says.
    #[error(transparent)]
    Tls(#[from] tidelog_tls::TlsError),
}

impl CliError {
    /// 1 for what failed, 2 for what was asked wrongly, 3 for what could not be judged.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoProfile
            | Self::OtherShape { .. }
            | Self::NoCluster { .. }
            | Self::NoNode { .. }
            | Self::Offline(OfflineError::NothingHere { .. })
            | Self::Repair(RepairError::Offline(OfflineError::NothingHere { .. })) => ExitCode::from(2),
            Self::NotJudged { .. } => ExitCode::from(3),
            Self::File { .. }
            | Self::Layout { .. }
            | Self::NoServer { .. }
            | Self::NodeEnded { .. }
            | Self::NotReady { .. }
            | Self::NoPorts { .. }
            | Self::StillRunning { .. }
            | Self::DirectoryBusy { .. }
            | Self::Process { .. }
            | Self::Spawn { .. }
            | Self::Runtime { .. }
            | Self::AuthorityExists { .. }
            | Self::Input(_)
            | Self::Stalled { .. }
            | Self::Interrupted
            | Self::NoStream
            | Self::NoLeader { .. }
            | Self::NotCaughtUp { .. }
            | Self::PromiseBroken { .. }
            | Self::NoReplica { .. }
            | Self::Damaged { .. }
            | Self::Differ { .. }
            | Self::NotCompared { .. }
            | Self::NotMended { .. }
            | Self::NotTheSource { .. }
            | Self::Source { .. }
            | Self::NotSettled { .. }
            | Self::UnsafeChange { .. }
            | Self::NobodyToLead { .. }
            | Self::NotCreated { .. }
            | Self::NoCursor { .. }
            | Self::NotConfirmed { .. }
            | Self::Recover(_)
            | Self::Offline(_)
            | Self::Repair(_)
            | Self::Client(_)
            | Self::Tls(_) => ExitCode::FAILURE,
        }
    }
}
