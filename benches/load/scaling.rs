//! How cost grows: the same work with more members, rooms, connections, history or bytes. A row's work is
//! `series:x`, which is what `scripts/plot.sh` draws.

use std::path::Path;

use crate::report::{Figures, Row};
use crate::servers::{Kind, Pair};
use crate::works::{Accounts, Stage};
use crate::{Failure, Options, files, note, start};

/// Accounts that the largest of them needs.
pub(crate) const PEOPLE: usize = 4010;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Series {
    /// One room of so many, 8 messages in flight.
    Members,
    /// So many rooms of 10, 4 in flight in each.
    Rooms,
    /// One room of 10, 8 in flight, and so many idle sessions.
    Connections,
    /// The newest page of a log of so many messages.
    History,
    /// An upload of so many MiB.
    Size,
}

const ALL: [(Series, &str, &[usize]); 5] = [
    (Series::Members, "members", &[2, 10, 30, 100, 300, 1000]),
    (Series::Rooms, "rooms", &[1, 5, 20, 50, 100]),
    (Series::Connections, "connections", &[0, 250, 1000, 4000]),
    (Series::History, "history", &[1000, 10_000, 100_000]),
    (Series::Size, "size", &[1, 4, 16, 64]),
];

impl Series {
    fn is_for(self, kind: Kind) -> bool {
        match self {
            Series::Members | Series::Rooms | Series::Connections => kind != Kind::Ngircd,
            Series::History => kind == Kind::Downstream,
            Series::Size => matches!(kind, Kind::Downstream | Kind::Bare),
        }
    }

    fn run(self, x: usize, stage: &Stage<'_>, options: &Options) -> Result<Figures, Failure> {
        match self {
            Series::Members => stage.rooms(1, x, 8, 0, options.length),
            Series::Rooms => stage.rooms(x, 10, 4, 0, options.length),
            Series::Connections => stage.rooms(1, 10, 8, x, options.length),
            Series::History => stage.history(x),
            Series::Size => files::alone(stage, x),
        }
    }
}

/// Every point once. A server that cannot do one is left out there, and said so.
pub(crate) fn measure(
    options: &Options,
    root: &Path,
    pair: &Pair,
    accounts: &Accounts,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    for (series, name, points) in ALL {
        for &x in points {
            for &kind in options.servers.iter().filter(|&&kind| series.is_for(kind) && kind.is_installed()) {
                let (_dir, server) = start(kind, root, pair)?;
                match series.run(x, &Stage { server: &server, accounts }, options) {
                    Ok(figures) => note(rows, &format!("{name}:{x}"), kind.name(), figures),
                    Err(error) => println!("{name}:{x}, {}: not measured: {error}", kind.name()),
                }
            }
        }
    }
    Ok(())
}
