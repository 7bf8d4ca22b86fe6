//! DownStream: a self-hosted chat server that a person can talk to by hand.
pub mod ops;
pub mod protocol;
#[cfg(feature = "daemon")]
pub mod store;
pub mod hub {
    //! x
    pub mod settings;
}
