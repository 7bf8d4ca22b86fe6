//! The filters for a session by hand: `seal` and `open`.

use std::io::{BufRead as _, Read as _};

use downstream::e2e::inner::TEXT_MAX;

use super::offline;
use super::talk::check_text;
use crate::app::{ByHand, Content};
use crate::cli::Seal;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::show::{Layout, Output, escaped};

/// The longest line that `open` reads: a server's longest, and room to spare.
const LINE_MAX: u64 = 256 * 1024;

/// `dsc seal`
pub(crate) fn seal(ctx: &mut Context, seal: &Seal) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    let most = u64::try_from(TEXT_MAX).unwrap_or(u64::MAX).saturating_add(2);
    std::io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed(format!("standard input: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage("standard input is no UTF-8 text"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
    check_text(&text)?;
    let (to, lines) = match (&seal.to, &seal.room) {
        (Some(user), _) => (user.to_string(), offline(ctx, |client| client.seal_direct(user, Content::Text(text)))?),
        (None, Some(room)) => {
            let name = &room.0;
            (name.to_string(), offline(ctx, |client| client.seal_room(name, Content::Text(text), seal.raw))?)
        }
        (None, None) => return Err(Failure::usage("give --to USER or --room ROOM")),
    };
    if seal.raw {
        return ctx.out.print(&format!("{}\n", lines.body.strip_prefix("e2e:").unwrap_or(&lines.body)));
    }
    for (user, body) in &lines.signals {
        ctx.out.print(&format!("/signal {user} {body}\n"))?;
    }
    ctx.out.print(&format!("/msg {to} {}\n", lines.body))
}

/// `dsc open`
pub(crate) fn open(ctx: &mut Context) -> Result<(), Failure> {
    let mut input = std::io::stdin().lock();
    let out = ctx.out.with_layout(Layout::Bare);
    let (mut failed, mut wanted) = (0_usize, Vec::new());
    loop {
        let mut bytes = Vec::new();
        let read = (&mut input).take(LINE_MAX).read_until(b'\n', &mut bytes);
        let read = read.map_err(|error| Failure::failed(format!("standard input: {error}")))?;
        if read == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\r', '\n']);
        match offline(ctx, |client| client.open_line(line))? {
            ByHand::Pass => pass(out, line)?,
            ByHand::Opened(events) => events.iter().try_for_each(|event| out.show(event))?,
            ByHand::Failed(events) => {
                failed += 1;
                events.iter().try_for_each(|event| out.show(event))?;
            }
            ByHand::Wants(command) => {
                pass(out, line)?;
                if !wanted.contains(&command) {
                    wanted.push(command);
                }
            }
        }
    }
    if !wanted.is_empty() {
        return Err(Failure::new(Exit::NoSession, "an envelope cannot be opened before the server has answered")
            .hint(format!("type this to the server, give its rows to `dsc import` (signals to `dsc open`), then open the line again:\n{}", wanted.join("\n"))));
    }
    if failed > 0 {
        return Err(Failure::failed(format!("{failed} envelope(s) cannot be opened")));
    }
    Ok(())
}

/// A line that holds nothing to open, as it came but for its control characters. What no server says is
/// marked, so that nothing passed through looks as if it had been opened.
fn pass(out: Output, line: &str) -> Result<(), Failure> {
    let known = ["OK ", "ERR ", "- ", "* "].iter().any(|start| line.starts_with(start));
    out.print(&format!("{}{}\n", if known { "" } else { "? " }, escaped(line)))
}
