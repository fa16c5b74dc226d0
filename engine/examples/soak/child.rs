//! A process that works as a round does, and is killed in the midst of it.
//!
//! 1. The soak starts itself again, and hands the child on its stdin what was answered in each log so far.
//! 2. The child opens the directory, verifies it, appends and trims, and tells each answer on its stdout as soon as it has
//!    it; a trim it tells before it asks for it.
//! 3. After a while, whatever it is doing just then, it is killed with SIGKILL. What it had told until then is what was
//!    answered: all that was durable must be there when the directory is opened next, and more may be.
//!
//! A child ends no life of a log, so that the ids of logs are known without asking it.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::Storage;

use crate::clock::{Begun, pause};
use crate::model::Violation;
use crate::rounds;
use crate::work::{self, Answered, World};

/// How long a child works that nobody kills.
const UNKILLED_MAX: Duration = Duration::from_secs(600);
/// How long a child may take to open everything and give the first answer.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(300);

/// Something that a child tells, as one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// An append of a writer was answered: its next number, and the end of the log.
    Appended { slot: usize, writer: usize, number: u64, end: u64, durable: bool },
    /// A trim is about to be asked for.
    Trimming { slot: usize, to: u64 },
}

impl Told {
    /// Tells it.
    pub(crate) fn tell(self) {
        match self {
            Self::Appended { slot, writer, number, end, durable } => {
                println!("appended {slot} {writer} {number} {end} {}", u8::from(durable));
            }
            Self::Trimming { slot, to } => println!("trimming {slot} {to}"),
        }
    }

    /// Reads a line. `None`: it is not whole, as the last one of a child that was killed may be.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_suffix('\n')?.split(' ');
        let what = words.next()?;
        let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        match (what, numbers.as_slice()) {
            ("appended", [slot, writer, number, end, durable]) => Some(Self::Appended {
                slot: usize::try_from(*slot).ok()?,
                writer: usize::try_from(*writer).ok()?,
                number: *number,
                end: *end,
                durable: *durable == 1,
            }),
            ("trimming", [slot, to]) => Some(Self::Trimming { slot: usize::try_from(*slot).ok()?, to: *to }),
            _ => None,
        }
    }
}

/// What the child does: works until it is killed.
pub(crate) fn work(data: &Path, seed: u64) -> Result<(), Violation> {
    let answered: Vec<Answered> = serde_json::from_reader(std::io::stdin())
        .map_err(|error| format!("a child was told no answers: {error}"))?;
    let world = World::of_child(Begun::now());
    for (slot, answered) in world.slots.iter().zip(answered) {
        *slot.answered() = answered;
    }
    let storage: Arc<dyn Storage> = Arc::new(OsStorage);
    let engine = rounds::open(&world, &storage, data)?;
    work::round(&world, &engine, UNKILLED_MAX, seed);
    Err("nobody killed it".to_owned())
}

/// Lets a child work for `length` from its first answer on, and kills it. Then takes over what it told.
pub(crate) fn work_and_kill(
    world: &World,
    data: &Path,
    length: Duration,
    seed: u64,
) -> Result<(), Violation> {
    let failed = |what: &str, error: std::io::Error| format!("a child: {what}: {error}");
    let program = std::env::current_exe().map_err(|error| failed("find the program", error))?;
    let mut child = Command::new(program)
        .arg("--child")
        .arg(data)
        .args(["--seed", &seed.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed("start", error))?;
    let outcome = with_child(world, &mut child, length);
    // Also when something failed: nothing that was started here goes on.
    child.kill().map_err(|error| failed("kill", error))?;
    child.wait().map_err(|error| failed("wait", error))?;
    outcome
}

fn with_child(world: &World, child: &mut Child, length: Duration) -> Result<(), Violation> {
    let answered: Vec<Answered> = world.slots.iter().map(|slot| slot.answered().clone()).collect();
    let answered = serde_json::to_string(&answered).map_err(|error| format!("a child: {error}"))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("a child has no stdin and stdout".to_owned());
    };
    stdin.write_all(answered.as_bytes()).map_err(|error| format!("a child: tell it the answers: {error}"))?;
    drop(stdin);
    let answers = AtomicU64::new(0);
    let killed = std::thread::scope(|scope| {
        scope.spawn(|| take_over(world, BufReader::new(stdout), &answers));
        let begun = Begun::now();
        while answers.load(Ordering::Relaxed) == 0 && begun.elapsed() < FIRST_ANSWER_MAX {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("a child ended by itself, before it answered: {status}"));
            }
            pause(Duration::from_millis(2));
        }
        pause(length);
        match child.try_wait() {
            Ok(None) => child.kill().map_err(|error| format!("a child: kill: {error}")),
            Ok(Some(status)) => Err(format!("a child ended by itself: {status}")),
            Err(error) => Err(format!("a child: {error}")),
        }
    });
    killed?;
    if answers.load(Ordering::Relaxed) == 0 {
        return Err(format!("a child gave no answer in {FIRST_ANSWER_MAX:?}"));
    }
    for slot in &world.slots {
        slot.answered().was_killed = true;
    }
    Ok(())
}

/// Takes over each line until the child is gone.
fn take_over(world: &World, mut lines: impl BufRead, answers: &AtomicU64) {
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        match Told::parse(&line) {
            Some(Told::Appended { slot, writer, number, end, durable }) => {
                if let Some(slot) = world.slots.get(slot) {
                    let before = slot.answered().note(writer, number, end, durable);
                    world.counts.appended.fetch_add(number.saturating_sub(before), Ordering::Relaxed);
                }
                answers.fetch_add(1, Ordering::Relaxed);
            }
            Some(Told::Trimming { slot, to }) => {
                if let Some(slot) = world.slots.get(slot) {
                    slot.answered().note_trim(to);
                }
                world.counts.trims.fetch_add(1, Ordering::Relaxed);
            }
            None => {}
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child that is killed while it tells something has told nothing: half a number is another number.
    #[test]
    fn a_line_that_is_not_whole_counts_for_nothing() {
        let told = Told::Appended { slot: 3, writer: 1, number: 120, end: 4000, durable: true };
        assert_eq!(Told::parse("appended 3 1 120 4000 1\n"), Some(told));
        assert_eq!(Told::parse("trimming 3 400\n"), Some(Told::Trimming { slot: 3, to: 400 }));
        for line in ["appended 3 1 120 4000 1", "appended 3 1 12\n", "trimming 3 40", "trimming\n", "\n", ""]
        {
            assert_eq!(Told::parse(line), None, "{line:?}");
        }
    }
}
