//! `dsc`: the helper client. It seals what people say before the server sees it, and opens what comes.

fn main() {}
