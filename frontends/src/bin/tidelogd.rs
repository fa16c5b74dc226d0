//! The tidelog server: reads its configuration, then runs a node until it is told to stop.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment and the configuration file"
)]

use std::process::ExitCode;

use tidelog_frontends::config::{self, ConfigError, Invocation};
use tidelog_frontends::server;

/// The configuration is wrong: nothing was started.
const EXIT_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let loaded =
        config::load(std::env::args_os().skip(1), std::env::vars_os(), |path| std::fs::read_to_string(path));
    match loaded {
        Ok(Invocation::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Invocation::Run { configuration, founding }) => server::run(&configuration, founding).into(),
        Err(ConfigError::Usage(error)) => error.exit(),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(EXIT_CONFIGURATION)
        }
    }
}
