//! The server: what a node offers to clients and operators.
//!
//! ```text
//! native (QUIC) ---.
//! admin (HTTP) -----+--> Broker --> consensus
//! ```
//!
//! A front-end translates one protocol into calls of [`broker::Broker`] and its answers back. It implements
//! [`FrontEnd`], and adding one touches no other folder. [`server`] starts and stops the whole node.

pub mod admin;
pub mod broker;
mod clock;
pub mod config;
pub mod measure;
pub mod native;
mod random;
pub mod server;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use broker::Broker;

/// One protocol that a node speaks.
pub trait FrontEnd: Send {
    /// Its name, for log lines.
    fn name(&self) -> &'static str;

    /// Begins to serve `broker` and returns the address it serves at. Runs on tokio, which must have been entered.
    ///
    /// # Errors
    /// [`StartError`]: nothing is served.
    fn start(&mut self, broker: Arc<Broker>) -> Result<SocketAddr, StartError>;

    /// Takes no new work, lets what is under way be answered, and ends within `within`. [`Broker::begin_stop`] was
    /// called before, so that nothing waits for records that may never come.
    fn stop(&mut self, within: Duration) -> Stopping<'_>;
}

/// Ends once a front-end has stopped.
pub type Stopping<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A front-end could not be started.
#[derive(Debug, thiserror::Error)]
#[error("E2207 the {front_end} front-end cannot serve: {source}; free its address or choose another")]
pub struct StartError {
    /// Its name.
    pub front_end: &'static str,
    /// Why.
    pub source: io::Error,
}
