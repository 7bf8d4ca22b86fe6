//! `dsc`: the helper client. It seals what people say before the server sees it, and opens what comes.

#![forbid(unsafe_code)]

mod error;
mod event;
mod server;

fn main() -> std::process::ExitCode {
    error::Exit::Done.into()
}
