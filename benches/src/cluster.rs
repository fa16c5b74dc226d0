//! A cluster of real processes, started and stopped by `tidelog up` and `tidelog down`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

/// A running cluster; stopped when dropped.
#[derive(Debug)]
pub struct Cluster {
    tidelog: PathBuf,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Builds the release programs if need be and starts `nodes` nodes below `under`.
    ///
    /// # Errors
    /// If they cannot be built or do not become ready.
    pub fn up(under: &Path, nodes: usize) -> Result<Self, Failure> {
        let tidelog = programs()?;
        let dir = tempfile::Builder::new().prefix("cluster-").tempdir_in(under)?;
        let cluster = Self { tidelog, dir };
        let count = nodes.to_string();
        cluster.run(&["up", "--nodes", &count, "--base-port", "0", "--groups", "1", "--json"])?;
        Ok(cluster)
    }

    /// The profile for clients.
    #[must_use]
    pub fn profile(&self) -> PathBuf {
        self.dir.path().join("client.toml")
    }

    fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        let output =
            Command::new(&self.tidelog).args(arguments).arg("--dir").arg(self.dir.path()).output()?;
        if output.status.success() {
            Ok(())
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let answered = String::from_utf8_lossy(&output.stdout).into_owned();
            Err(format!("tidelog {}: {said}{answered}", arguments.join(" ")).into())
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down"]) {
            eprintln!("cannot stop the cluster: {error}");
        }
    }
}

/// Builds `tidelogd` and `tidelog` as released, beside this benchmark, and returns the latter's path.
fn programs() -> Result<PathBuf, Failure> {
    let here = std::env::current_exe()?;
    let release = here.ancestors().nth(2).ok_or("the benchmark lies in no target directory")?.to_path_buf();
    let target = release.parent().ok_or("the benchmark lies in no target directory")?;
    let status = Command::new("cargo")
        .args(["build", "--release", "--quiet", "--bin", "tidelogd", "--bin", "tidelog"])
        .args(["-p", "tidelog-frontends", "-p", "tidelog-tools"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .arg("--target-dir")
        .arg(target)
        .status()?;
    if status.success() { Ok(release.join("tidelog")) } else { Err("the programs do not build".into()) }
}
