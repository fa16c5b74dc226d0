//! What the program answers to whoever calls it: exit codes, and the command that makes a state again.

#![expect(clippy::unwrap_used, reason = "a test may fail by it, in what several tests share too")]

use std::process::{Command, Output};

fn called(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidelog-crash-states")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const FIRST: [&str; 3] = ["--quick", "--workload", "first"];

#[test]
fn promises_that_are_all_kept_end_with_zero() {
    let output = called(&FIRST);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("violations 0,"), "{}", said(&output));
}

/// The command that was printed made the state again without the defect, and found every promise kept.
#[test]
fn a_promise_that_is_not_kept_is_found_and_the_command_printed_shows_it_again() {
    for defect in ["no-file-syncs", "no-directory-syncs"] {
        let output = called(&[FIRST.as_slice(), &["--defect", defect]].concat());
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let said = said(&output);
        let again = said.lines().find_map(|line| line.split_once("crash-states -- "));
        let again: Vec<&str> = again.unwrap().1.split(' ').map(|word| word.trim_matches('\'')).collect();
        let output = called(&again);
        assert_eq!(output.status.code(), Some(1), "{again:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("BROKEN: "), "{again:?}");
    }
}

#[test]
fn what_is_asked_for_wrongly_ends_with_two() {
    assert_eq!(called(&["--workload", "none-of-that-name"]).status.code(), Some(2));
    assert_eq!(called(&["--replay", "first/no-number/lose"]).status.code(), Some(2));
    if !cfg!(feature = "defects") {
        assert_eq!(called(&["--defect", "skip-recovered-tail-sync"]).status.code(), Some(2));
    }
}

/// A build that is broken on purpose is caught by the program itself.
#[cfg(feature = "defects")]
#[test]
fn recovery_that_does_not_sync_what_it_keeps_is_found_and_ends_with_one() {
    let defect = ["--defect", "skip-recovered-tail-sync"];
    assert_eq!(called(&[FIRST.as_slice(), &defect].concat()).status.code(), Some(1));
}
