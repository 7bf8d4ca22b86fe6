//! DownStream: a self-hosted chat server that a person can talk to by hand.
pub mod ops;
pub mod protocol;
pub mod hub {
    //! x
    pub mod settings;
}
