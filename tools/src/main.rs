//! `tidelog`: the command line.
//!
//! Each command is a module that answers through [`output::Output`]. `local` starts and stops clusters on this machine
//! and knows processes and files; the online commands know only what the client library says. `segment` alone
//! looks into a node's data directory, and needs no node for it.

mod arguments;
mod bench;
mod certs;
mod channel;
mod cluster;
mod consume;
mod cursor;
mod demo;
mod error;
mod files;
mod import;
mod local;
mod local_commands;
mod online;
mod output;
mod produce;
mod progress;
mod segment;
mod status;
mod values;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use serde::Serialize;

use arguments::{Arguments, Command};
use error::CliError;
use online::Patience;
use output::{Answer, Output};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let error = CliError::Runtime { source };
            output.fail(&error);
            return error.exit_code();
        }
    };
    let result = runtime.block_on(Box::pin(run(arguments, &output)));
    // Reading standard input cannot be interrupted; the process does not wait for it.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.fail(&error);
            error.exit_code()
        }
    }
}

async fn run(arguments: Arguments, output: &Output) -> Result<(), CliError> {
    let online = |patience| online::connect(arguments.profile.as_deref(), patience);
    match arguments.command {
        Command::Up(up) => local_commands::up(up, output).await,
        Command::Down(down) => local_commands::down(down, output).await,
        Command::RestartNode(restart) => local_commands::restart_node(restart, output).await,
        Command::Demo(demo) => Box::pin(demo::run(demo, output)).await,
        Command::Bench(bench) => Box::pin(bench::run(bench, arguments.profile.as_deref(), output)).await,
        Command::Certs(certs) => certs::run(certs, output),
        Command::Status => status::run(&online(Patience::Look)?, output).await,
        Command::Cluster(cluster) => {
            Box::pin(cluster::run(cluster, arguments.profile.as_deref(), output)).await
        }
        Command::Channel(channel) => channel::run(channel, &online(Patience::Work)?, output).await,
        Command::Produce(produce) => produce::run(produce, &online(Patience::Work)?, output).await,
        Command::Consume(consume) => consume::run(consume, &online(Patience::Work)?, output).await,
        Command::Cursor(cursor) => cursor::run(cursor, &online(Patience::Work)?, output).await,
        Command::Import(import) => Box::pin(import::run(import, &online(Patience::Work)?, output)).await,
        Command::Segment(segment) => segment::run(segment, output),
        Command::Version => {
            output.print(&Version::of_this_program());
            Ok(())
        }
        Command::Completions { shell } => {
            output.set_answered();
            clap_complete::generate(shell, &mut Arguments::command(), "tidelog", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// What `tidelog version` answers.
#[derive(Serialize)]
struct Version {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
}

impl Version {
    fn of_this_program() -> Self {
        Self { version: env!("CARGO_PKG_VERSION"), os: std::env::consts::OS, arch: std::env::consts::ARCH }
    }
}

impl Answer for Version {
    fn text(&self) -> String {
        format!("tidelog {} ({} {})", self.version, self.os, self.arch)
    }
}
