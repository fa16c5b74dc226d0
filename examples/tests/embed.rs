//! The embedding example, run as its own process.

use std::process::Command;

fn embed(dir: &std::path::Path, line: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_embed")).arg(dir).arg(line).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What one run called durable, the next one reads back.
#[test]
fn lines_of_earlier_runs_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert_eq!(embed(&data, "paid"), "0 paid\n");
    assert_eq!(embed(&data, "shipped"), "0 paid\n1 shipped\n");
}
