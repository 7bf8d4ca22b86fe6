//! `dsc`: the helper client. It seals what people say before the server sees it, and opens what comes.

#![forbid(unsafe_code)]
#![expect(unreachable_pub, reason = "in a binary, `pub` tells what a module offers to the others")]
#![expect(dead_code, reason = "the commands that use all this come next")]

mod error;
mod event;
mod net;
mod server;

fn main() -> std::process::ExitCode {
    error::Exit::Done.into()
}
