//! DownStream: a self-hosted chat server that a person can talk to by hand.
pub mod ops;
pub mod protocol;
pub mod hub {
    //! x
    pub mod settings;
}
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod hasher;
#[cfg(feature = "daemon")]
pub mod logging;
#[cfg(feature = "daemon")]
pub mod service;
#[cfg(feature = "daemon")]
pub mod tls;
