//! The network between the nodes, as far as it can be made bad: a proxy for their datagrams.
//!
//! Each node listens to its peers on `127.0.0.1`, where nobody is told to look, and has itself told to the others on an
//! address of its own, `127.0.1.x` with the same port (`advertise_host`). There the proxy listens. A datagram that comes to
//! the address of node *b* from node *a* is sent on to *b* from the address of *a*, so *b* sees *a* where it expects it,
//! and answers take the same way back. Neither the catalogue nor a connection ever learns another address, so no datagram
//! between two nodes can miss the proxy.
//!
//! `rules` decides what becomes of a datagram; `proxy` has the sockets. Clients speak to nodes without it.

mod proxy;
mod rules;

pub use proxy::{Ends, Proxy};
pub use rules::{Fate, Rule, Rules};
