//! A thread of the node that panics, under a hook that does not end the process: what is left must not hang.

use std::sync::Mutex;
use std::time::Duration;

use tidelog_wire::ids::{GroupId, TimestampMs};
use tokio::sync::watch;

use super::*;
use crate::entry::{Command, MetaCommand};
use crate::runtime::one_node::{PATIENCE, config, serves};
use crate::runtime::{Node, SystemClock};

/// A clock upon which one thread, once it is named, panics. Every thread of a node asks it.
#[derive(Debug)]
struct Trap {
    clock: SystemClock,
    thread: Mutex<Option<&'static str>>,
}

impl Clock for Trap {
    fn now(&self) -> Duration {
        let trapped = *self.thread.lock().unwrap();
        assert!(trapped.is_none() || trapped != std::thread::current().name(), "the trap of a test");
        self.clock.now()
    }

    fn wall(&self) -> TimestampMs {
        self.clock.wall()
    }
}

/// A node of which `thread` panics says so, answers whoever waits, ends, and gives its directory back.
async fn panics_and_ends(thread: &'static str) {
    let dir = tempfile::tempdir().unwrap();
    let trap = Arc::new(Trap { clock: SystemClock::new(), thread: Mutex::default() });
    let (told, mut heard) = watch::channel(String::new());
    let mut config = config(&dir);
    config.clock = Arc::<Trap>::clone(&trap);
    config.fatal = Fatal::new(move |message| drop(told.send_replace(message.to_owned())));
    let again = config.clone();
    let node = Node::start(config).await.unwrap();
    serves(&node).await;

    *trap.thread.lock().unwrap() = Some(thread);
    let command = || Command::Meta(MetaCommand::MintProducer);
    let answer = node.submit(GroupId::META, command(), Duration::from_secs(1));
    let heard = heard.wait_for(|message| !message.is_empty());
    let message = tokio::time::timeout(PATIENCE, heard).await.expect("the end is told").unwrap().clone();
    assert!(message.starts_with(&format!("E1130 thread {thread} ")), "{message}");
    let answered = tokio::time::timeout(PATIENCE, answer).await;
    assert!(answered.is_ok(), "whoever waits for an outcome is answered");
    let ended = tokio::time::timeout(PATIENCE, node.stop()).await;
    assert!(ended.is_ok(), "the node ends");
    drop(node);

    *trap.thread.lock().unwrap() = None;
    let node = Node::start(again).await.unwrap();
    serves(&node).await;
    node.abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raft_thread_that_panics_hangs_nobody() {
    panics_and_ends("raft").await;
}

/// In the middle of raft-engine's write, with its locks held.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_writer_that_panics_hangs_nobody() {
    panics_and_ends("log-writer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_thread_that_panics_hangs_nobody() {
    panics_and_ends("apply").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_panics_hangs_nobody() {
    panics_and_ends("keeper").await;
}
