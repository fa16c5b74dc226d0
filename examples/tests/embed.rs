//! The embedding example, run as its own process.

use std::process::Command;

fn embed(dir: &std::path::Path, line: &str) -> std::io::Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_embed")).arg(dir).arg(line).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What one run called durable, the next one reads back.
#[test]
fn lines_of_earlier_runs_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert_eq!(embed(&data, "paid").unwrap(), "0 paid\n");
    assert_eq!(embed(&data, "shipped").unwrap(), "0 paid\n1 shipped\n");
}
