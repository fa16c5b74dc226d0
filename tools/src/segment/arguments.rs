//! `tidelog segment …`: flags and help.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// What can be asked of segment files.
#[derive(Debug, Subcommand)]
pub(crate) enum Segment {
    /// Shows what lies at a path: identity, checkpoints, logs and their segments.
    ///
    /// Reads headers and footers, and of a segment that is not sealed all of it. Says nothing of damage inside sealed
    /// segments: that is what `segment verify` is for.
    ///
    /// Example: tidelog segment inspect node-0/data
    Inspect(Paths),
    /// Reads everything and names each damaged range: file, bytes, offsets, why.
    ///
    /// PATH is a data directory, its `logs`, the directory of one log (DATA/logs/GENERATION/PARTITION), or a `.seg` file;
    /// copies of these will do. Every frame is checked: checksums, place, log, offsets, and the chain from frame to frame
    /// and from segment to segment. In a data directory the checkpoints say how far each log was durable: below that,
    /// what does not verify is damage; above it, it is a torn tail, which a crash may leave and the next start sets aside.
    /// `DATA/raft` is not looked at: it checks itself at each start.
    ///
    /// Takes no lock and changes nothing, so it may run beside a node; what that one is writing at the moment looks like a
    /// torn tail.
    ///
    /// Output: one line per damaged range, `FILE: bytes A..B, offsets X..Y: why`. A range behind the end of its file, or
    /// in a file that is not there, is missing. What is wrong in segments below the start of a log is told and is no damage:
    /// nobody may ask for it any more.
    ///
    /// Some things only a checkpoint says: how far a log with a raft log behind it was durable, and where a trimmed log
    /// starts. Where none is at hand, as beside a copied log, a line `not judged: …` names the log and what would not show.
    ///
    /// Exit codes: 0 sound, 1 damaged, 2 asked wrongly, 3 no damage found, but something was not judged.
    #[command(
        after_long_help = "Examples:\n  tidelog segment verify node-0/data\n  tidelog --json segment verify backup/logs/7/0 | jq .damage"
    )]
    Verify(Paths),
    /// Labels every byte of a segment file.
    ///
    /// header, frames, padding (zeros written ahead), index, footer, torn tail, damage, foreign. The lengths sum to the
    /// size of the file, which the last line says.
    ///
    /// Exit codes: 0 no damage, 1 damage, 2 asked wrongly.
    #[command(
        after_long_help = "Examples:\n  tidelog segment explain node-0/data/logs/7/0/00000000000000000000.seg\n  tidelog segment explain --frames SEGMENT | grep -v frames"
    )]
    Explain(Explain),
    /// Writes the records of a log as JSON lines, past whatever is damaged.
    ///
    /// Each line is {"log", "partition", "offset", "timestamp", "key", "value", "headers"}, the same as of `consume --json`.
    /// Bytes that are UTF-8 stand as text, others as base64 in "key_base64" or "value_base64"; a key or value that is null
    /// stays null. Every codec is unpacked. Damage is told on standard error, a line for each range as `segment verify`
    /// says it, with --json as {"damaged": {"file", "log", "bytes", "offsets", "why"}}, and the exit code is then 1. With
    /// --max nothing behind the last of these records is read.
    #[command(
        after_long_help = "Examples:\n  tidelog segment dump node-0/data/logs/7/0 --from 1000 --max 10\n  tidelog segment dump copy.seg | jq -r .value"
    )]
    Dump(Dump),
    /// Finds the first difference between two copies of a log, in few reads.
    ///
    /// A chain runs through every frame, so two copies are equal up to a frame if it has the same chain in both. The place
    /// where they part is found by bisection, without reading them through. Damage is not a difference: verify both first.
    ///
    /// A and B are directories of one log, data directories (then every log that both have is compared), or `.seg` files.
    ///
    /// Exit codes: 0 equal as far as both go, 1 different, or nothing that both have could be compared, 2 asked wrongly.
    ///
    /// Example: tidelog segment compare node-0/data/logs/7/0 node-1/data/logs/7/0
    Compare(Compare),
    /// Mends a stopped directory: says how, and with --apply does it.
    ///
    /// By itself: writes segment headers, indexes and footers anew where the frames prove them, gives segments that were
    /// renamed their own name back if nothing stands there (if two files claim one place, or two segments have each other's names, they are left), and sets torn tails and files that have no place here aside. Not those with intact frames in them, unless a raft log has these records as
    /// well, another file takes the place, or it is certain whose the file is: they are left, and named. With --from, damaged and missing ranges are filled from another copy of the
    /// same log, such as another node's data directory or a backup: only where the chain, which runs from the frames before
    /// the hole through the filled bytes to the frames behind it, proves that they are the very same. Nothing is made up, no
    /// frame that verifies is touched.
    ///
    /// Whatever is overwritten or cut is first copied to the `quarantine` directory, with a note; the output names each
    /// piece. Interrupted and run again it ends the same; run once more it changes nothing.
    ///
    /// Refused while a process holds the data directory: stop the node first. The other copy is only read.
    ///
    /// Exit codes: 0 nothing is left damaged (without --apply: all can be mended), 1 something is left, 2 asked wrongly.
    #[command(
        after_long_help = "Examples:\n  tidelog segment repair node-0/data --from node-1/data\n  tidelog segment repair --apply node-0/data --from node-1/data"
    )]
    Repair(Repair),
}

#[derive(Debug, Args)]
pub(crate) struct Paths {
    /// Data directory, directory of a log, or segment file.
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Segment file, or a directory of them.
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,
    /// A line for each frame, instead of one for each run of them.
    #[arg(long)]
    pub(crate) frames: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Dump {
    /// Data directory, directory of a log, or segment file.
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,
    /// First offset to write.
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub(crate) from: u64,
    /// Ends after this many records of each log.
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// One copy.
    #[arg(value_name = "A", value_hint = ValueHint::AnyPath)]
    pub(crate) one: PathBuf,
    /// The other copy.
    #[arg(value_name = "B", value_hint = ValueHint::AnyPath)]
    pub(crate) other: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// What to mend: data directory, directory of a log, or segment file.
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,
    /// Another copy of the same, to fill holes from.
    #[arg(long, value_name = "COPY", value_hint = ValueHint::AnyPath)]
    pub(crate) from: Option<PathBuf>,
    /// Does it, instead of saying what would be done.
    #[arg(long)]
    pub(crate) apply: bool,
}
