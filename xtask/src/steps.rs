//! What each step of the gate does.
//!
//! The dependency tree is compiled twice and no more: once as metadata (clippy and docs share it) and
//! once as code, in the dev profile, where dependencies are optimized a little. Tests and simulation
//! share that one: `cargo xtask simulation` runs the program of the test build, whose debug
//! assertions and overflow checks are worth more to it than speed.

use std::path::{Path, PathBuf};

use crate::fuzzing;
use crate::gate::Step;
use crate::programs::{Failure, Program, Workspace};
use crate::tidy;
use crate::tree::Tree;

/// Seeds that the gate simulates, both ends included.
pub(crate) const GATE_SEEDS: &str = "1..500";
/// Seconds that the gate gives to each fuzz target.
pub(crate) const GATE_FUZZ_SECONDS: u32 = 4;
/// The dependency checker, pinned so that the gate says the same everywhere.
const CARGO_DENY: Tool = Tool { package: "cargo-deny", program: "cargo-deny", version: "0.20.2" };
/// The driver of the fuzz targets, pinned for the same reason.
const CARGO_FUZZ: Tool = Tool { package: "cargo-fuzz", program: "cargo-fuzz", version: "0.13.2" };

/// The steps of the gate, cheap ones first.
pub(crate) fn gate() -> Vec<Step> {
    vec![
        Step {
            name: "format",
            about: "the formatting is rustfmt's",
            repeat: "cargo xtask format",
            work: format,
        },
        Step {
            name: "tidy",
            about: "rules of the tree that no compiler checks",
            repeat: "cargo xtask tidy",
            work: |workspace| tidy(workspace, false),
        },
        Step { name: "clippy", about: "no lint warns", repeat: "cargo xtask clippy", work: clippy },
        Step {
            name: "docs",
            about: "the documentation builds, links hold",
            repeat: "cargo xtask docs",
            work: docs,
        },
        Step { name: "test", about: "every test of the workspace", repeat: "cargo xtask test", work: test },
        Step {
            name: "simulation",
            about: "a batch of seeds: a whole cluster under faults, in virtual time",
            repeat: "cargo xtask simulation",
            work: |workspace| simulation(workspace, GATE_SEEDS),
        },
        Step {
            name: "crashes",
            about: "states that a crash may leave, each recovered and held to its promises",
            repeat: "cargo xtask crash-states --quick",
            work: |workspace| crash_states(workspace, true, &[]),
        },
        Step {
            name: "museum",
            about: "simulation and crash enumeration catch builds that are broken on purpose",
            repeat: "cargo xtask museum",
            work: museum,
        },
        Step {
            name: "deny",
            about: "licences, bans and sources of all dependencies",
            repeat: "cargo xtask deny",
            work: deny,
        },
        Step {
            name: "fuzz",
            about: "every decoder for some seconds",
            repeat: "cargo xtask fuzz",
            work: |workspace| fuzz(workspace, GATE_FUZZ_SECONDS, None),
        },
    ]
}

/// Checks the formatting; changes nothing.
pub(crate) fn format(workspace: &Workspace) -> Result<(), Failure> {
    needs_component(workspace, "rustfmt", "fmt")?;
    workspace.run(&cargo(["fmt", "--all", "--check"]))
}

/// Checks the rules of [`mod@tidy`]; with `mend`, first writes what can be derived: the index of the error pages.
pub(crate) fn tidy(workspace: &Workspace, mend: bool) -> Result<(), Failure> {
    let mut tree = Tree::read(&workspace.root)?;
    if mend {
        let (path, text) = tidy::codes::index(&tree);
        tree.write(&workspace.root, &path, text)?;
    }
    let findings = tidy::check(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    println!("{} files, {} rules, {} findings", tree.paths().count(), tidy::RULES.len(), findings.len());
    if findings.is_empty() { Ok(()) } else { Err(Failure::Findings { count: findings.len() }) }
}

/// Runs clippy on everything.
pub(crate) fn clippy(workspace: &Workspace) -> Result<(), Failure> {
    needs_component(workspace, "clippy", "clippy")?;
    workspace.run(&cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    let races = ["--package", "tidelog-engine", "--features", "interleave", "--test", "interleavings"];
    workspace.run(&cargo(["clippy", "--locked"]).arguments(races).arguments(["--", "-D", "warnings"]))
}

/// Builds the documentation of our own crates.
pub(crate) fn docs(workspace: &Workspace) -> Result<(), Failure> {
    workspace.run(
        &cargo(["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"])
            .variable("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"),
    )
}

/// Builds the programs first, because tests with real processes start them, then runs all tests, and the
/// engine's races in a few orders each.
pub(crate) fn test(workspace: &Workspace) -> Result<(), Failure> {
    workspace.run(&cargo(["build", "--workspace", "--bins", "--tests", "--locked"]))?;
    workspace.run(&cargo(["test", "--workspace", "--locked", "--no-fail-fast"]))?;
    interleavings(workspace, &[])
}

/// Tries the races of the engine's threads in many orders. The feature that lets a scheduler decide them is
/// never on together with anything else, so the engine is built once more for this.
pub(crate) fn interleavings(workspace: &Workspace, arguments: &[String]) -> Result<(), Failure> {
    let feature = ["--package", "tidelog-engine", "--features", "interleave", "--test", "interleavings"];
    workspace.run(&cargo(["test", "--locked"]).arguments(feature).arguments(["--"]).arguments(arguments))
}

/// Simulates `seeds` with the program of the test build.
pub(crate) fn simulation(workspace: &Workspace, seeds: &str) -> Result<(), Failure> {
    workspace.run(&cargo(["build", "--workspace", "--bins", "--tests", "--locked"]))?;
    workspace.run(&Program::new(workspace.target.join("debug/tidelog-sim")).arguments(["--seeds", seeds]))
}

/// Enumerates the states that crashes may leave. Built with assertions on, and fast: there are very many.
pub(crate) fn crash_states(workspace: &Workspace, quick: bool, arguments: &[String]) -> Result<(), Failure> {
    let package = ["--package", "tidelog-crash", "--bins"];
    workspace.run(&cargo(["build", "--profile", "checks", "--locked"]).arguments(package))?;
    let program = Program::new(workspace.target.join("checks/tidelog-crash-states"));
    workspace.run(&program.arguments(quick.then_some("--quick")).arguments(arguments))
}

/// Plays every deliberate defect until the simulation catches it, and lets the enumeration of crashes find those
/// that exist in such a build only. Fails if one is not caught.
pub(crate) fn museum(workspace: &Workspace) -> Result<(), Failure> {
    workspace.run(&cargo([
        "build",
        "--workspace",
        "--bin",
        "tidelog-sim",
        "--features",
        "tidelog-sim/defects",
        "--locked",
    ]))?;
    workspace.run(&Program::new(workspace.target.join("debug/tidelog-sim")).arguments(["--museum"]))?;
    let enumeration = ["--package", "tidelog-crash", "--features", "defects", "--locked", "--tests"];
    workspace.run(&cargo(["test"]).arguments(enumeration).arguments(["found"]))
}

/// Checks the dependencies. Advisories need the network and change by the day: they are not here.
pub(crate) fn deny(workspace: &Workspace) -> Result<(), Failure> {
    let program = CARGO_DENY.install(workspace)?;
    workspace.run(&Program::new(program).arguments([
        "--workspace",
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))
}

/// Runs the fuzz targets, or the one that is named, for `seconds` each.
pub(crate) fn fuzz(workspace: &Workspace, seconds: u32, target: Option<&str>) -> Result<(), Failure> {
    fuzzing::run(workspace, &CARGO_FUZZ.install(workspace)?, seconds, target)
}

/// Builds the soak of the engine, fast and with every assertion on, and runs it below the target directory.
pub(crate) fn soak_engine(workspace: &Workspace, arguments: &[String]) -> Result<(), Failure> {
    let build =
        ["build", "--locked", "--profile", "checks", "--package", "tidelog-engine", "--example", "soak"];
    workspace.run(&cargo(build))?;
    let data = workspace.folder(Path::new("soak"))?;
    let soak = workspace.target.join("checks/examples/soak");
    workspace.run(&Program::new(soak).arguments(["--dir"]).arguments([&data]).arguments(arguments))
}

/// Builds the programs and does faults to a cluster of them, below the target directory. Unless `dev` asks for the programs
/// of the test build, they are as fast as a release, with every assertion on.
pub(crate) fn chaos(workspace: &Workspace, dev: bool, arguments: &[String]) -> Result<(), Failure> {
    let (profile, folder) = if dev { ("dev", "debug") } else { ("checks", "checks") };
    let packages = [
        "--package",
        "tidelog-frontends",
        "--package",
        "tidelog-tools",
        "--package",
        "tidelog-chaos",
        "--bins",
    ];
    workspace.run(&cargo(["build", "--locked", "--profile", profile]).arguments(packages))?;
    let data = workspace.folder(Path::new("chaos"))?;
    let program = Program::new(workspace.target.join(folder).join("tidelog-chaos"));
    workspace.run(&program.arguments(["--dir"]).arguments([&data]).arguments(arguments))
}

/// Builds the release programs and measures how nodes come back, below the target directory.
pub(crate) fn returns(workspace: &Workspace, what: &str, arguments: &[String]) -> Result<(), Failure> {
    let packages = ["--package", "tidelog-frontends", "--package", "tidelog-chaos", "--bins"];
    workspace.run(&cargo(["build", "--locked", "--release"]).arguments(packages))?;
    let data = workspace.folder(Path::new("returns"))?;
    let program = Program::new(workspace.target.join("release/tidelog-returns"));
    workspace.run(&program.arguments([what, "--dir"]).arguments([&data]).arguments(arguments))
}

/// Builds the release programs and runs `tidelog demo`.
pub(crate) fn demo(workspace: &Workspace, arguments: &[String]) -> Result<(), Failure> {
    workspace.run(&cargo([
        "build",
        "--release",
        "--locked",
        "--package",
        "tidelog-frontends",
        "--package",
        "tidelog-tools",
        "--bins",
    ]))?;
    workspace
        .run(&Program::new(workspace.target.join("release/tidelog")).arguments(["demo"]).arguments(arguments))
}

fn cargo<const N: usize>(arguments: [&str; N]) -> Program {
    Program::new("cargo").arguments(arguments)
}

/// Installs a component of the compiler's distribution if it is missing.
fn needs_component(workspace: &Workspace, component: &str, command: &str) -> Result<(), Failure> {
    if workspace.succeeds(&cargo([command, "--version"])) {
        return Ok(());
    }
    workspace.run(&Program::new("rustup").arguments(["component", "add", component]))
}

/// A program of the registry, at one version.
struct Tool {
    package: &'static str,
    program: &'static str,
    version: &'static str,
}

impl Tool {
    /// The program's path; builds it below the target directory when no fitting one is there.
    ///
    /// Built without optimization: building takes minutes, running takes seconds.
    fn install(&self, workspace: &Workspace) -> Result<PathBuf, Failure> {
        let root = workspace.target.join("installed");
        let program = root.join("bin").join(self.program);
        let version = Program::new(&program).arguments(["--version"]);
        if version.output(None).is_ok_and(|output| String::from_utf8_lossy(&output).contains(self.version)) {
            return Ok(program);
        }
        workspace.run(
            &cargo(["install", "--locked", "--debug", "--version", self.version])
                .arguments(["--root"])
                .arguments([&root])
                .arguments([self.package])
                .variable("CARGO_PROFILE_DEV_DEBUG", "0")
                .variable("CARGO_TARGET_DIR", workspace.target.join("installed").join("build")),
        )?;
        Ok(program)
    }
}
