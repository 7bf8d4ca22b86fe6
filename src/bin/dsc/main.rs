//! `dsc`: the helper client. It seals what people say before the server sees it, and opens what comes.

#![forbid(unsafe_code)]
#![expect(unreachable_pub, reason = "a binary exports nothing: `pub` is for the rest of the client")]
#![expect(dead_code, unused_imports, reason = "the commands that use it come with the client's core")]

mod app;
mod error;
mod event;
mod server;
mod store;

fn main() -> std::process::ExitCode {
    error::Exit::Done.into()
}
