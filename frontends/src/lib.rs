//! The server: what a node offers to clients and operators.

pub mod config;
