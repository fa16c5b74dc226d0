//! Admin HTTP: what a node tells operators and their tools.
//!
//! Plain HTTP without authentication, so the configuration lets it listen on loopback addresses only; and it only
//! tells, it changes nothing. It starts before recovery, so that `/readyz` can say how far that is.
//!
//! Every route stands once in `routes`; the OpenAPI document is made from the same table. `listener` bounds
//! connections, and ends those that stay silent.

mod listener;
mod metrics;
mod openapi;
mod routes;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::{FrontEnd, StartError, Stopping};
use listener::LimitedListener;

/// What handlers share.
#[derive(Clone)]
struct AdminState {
    broker: Arc<Broker>,
}

impl AdminState {
    fn count(&self) {
        self.broker.counts().admin_requests.add(1);
    }
}

/// The admin front-end, before or after its start.
#[derive(Debug)]
pub struct AdminFrontEnd {
    listener: Option<std::net::TcpListener>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl AdminFrontEnd {
    /// A front-end that will serve on `listener`.
    #[must_use]
    pub fn new(listener: std::net::TcpListener) -> Self {
        Self { listener: Some(listener), running: None }
    }
}

impl FrontEnd for AdminFrontEnd {
    fn name(&self) -> &'static str {
        "admin"
    }

    fn start(&mut self, broker: Arc<Broker>) -> Result<SocketAddr, StartError> {
        let failed = |source| StartError { front_end: "admin", source };
        let listener = self.listener.take().ok_or_else(|| failed(std::io::ErrorKind::NotConnected.into()))?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let router = routes::router(AdminState { broker });
        let task = tokio::spawn(async move {
            let ended = async move {
                // A dropped sender means the same as a message: nobody wants the server any more.
                drop(stopped.await);
            };
            let served = axum::serve(LimitedListener::new(listener), router).with_graceful_shutdown(ended);
            if let Err(error) = served.await {
                tracing::error!(%error, "admin HTTP ended");
            }
        });
        self.running = Some((stop, task));
        Ok(address)
    }

    fn stop(&mut self, within: Duration) -> Stopping<'_> {
        Box::pin(async move {
            let Some((stop, mut task)) = self.running.take() else { return };
            drop(stop);
            if tokio::time::timeout(within, &mut task).await.is_err() {
                task.abort();
            }
        })
    }
}
