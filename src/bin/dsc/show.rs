//! What is printed: each [`Event`] as one line, for people or as JSON for programs.
//!
//! To people, what was asked for goes to standard output, notices and alarms to standard error, so that
//! neither ends up in a pipe. With `--json` everything goes to standard output.

mod escape;
mod progress;
mod qr;
mod text;
mod wire;

use std::io::{self, Write};

use anstream::AutoStream;
use downstream::protocol::Timestamp;

use crate::cli::ColorChoice;
use crate::error::Failure;
use crate::event::Event;

pub use escape::{json_escaped, line as escaped};
pub use progress::Progress;
pub use qr::qr;
pub use text::{Layout, Style, line};
pub use wire::{message_line, wire_line};

/// Where everything that is printed goes through. A small value: copied wherever it is needed.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    quiet: bool,
    layout: Layout,
    /// Colours on standard output and on standard error.
    paint: [bool; 2],
}

impl Output {
    /// Output in the form and the colours that were asked for.
    pub fn new(json: bool, quiet: bool, color: ColorChoice) -> Output {
        let choice = |auto: anstream::ColorChoice| match color {
            ColorChoice::Auto => auto != anstream::ColorChoice::Never,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        let paint = [choice(AutoStream::choice(&io::stdout())), choice(AutoStream::choice(&io::stderr()))];
        Output { json, quiet, layout: Layout::Full, paint }
    }

    /// The same with another layout of messages.
    #[must_use]
    pub fn with_layout(self, layout: Layout) -> Output {
        Output { layout, ..self }
    }

    /// Whether programs read this.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether only what was asked for is printed.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Shows one event, at once.
    ///
    /// # Errors
    /// [`Failure::closed`] if nobody reads any more; [`Failure::failed`] if it cannot be written.
    pub fn show(&self, event: &Event) -> Result<(), Failure> {
        let aside = matches!(
            event,
            Event::Notice { .. }
                | Event::Sent { .. }
                | Event::FileSent { .. }
                | Event::FileReceived { .. }
                | Event::Progress { .. }
        );
        // Progress is for programs, or a bar: see [`Progress`].
        if (self.quiet && aside) || (!self.json && matches!(event, Event::Progress { .. })) {
            return Ok(());
        }
        if self.json {
            return self.print(&format!("{}\n", json(event)?));
        }
        let aside = matches!(event, Event::Notice { .. } | Event::Alarm { .. } | Event::Error { .. });
        let [out, err] = self.paint;
        let style = Style { paint: if aside { err } else { out }, layout: self.layout, now: now() };
        let text = format!("{}\n", line(event, &style));
        if aside { written(io::stderr().lock(), &text) } else { written(io::stdout().lock(), &text) }
    }

    /// A notice: something to know that was not asked for.
    ///
    /// # Errors
    /// As [`Output::show`].
    pub fn notice(&self, kind: &str, text: impl Into<String>) -> Result<(), Failure> {
        self.show(&Event::Notice { kind: kind.to_owned(), subject: None, text: text.into() })
    }

    /// Prints text as it is, on standard output: lines of the protocol, documents. What came from others
    /// has to be [`escaped`] before.
    ///
    /// # Errors
    /// As [`Output::show`].
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        written(io::stdout().lock(), text)
    }

    /// A QR code for the camera of another device, on standard output.
    ///
    /// # Errors
    /// As [`Output::show`], and if the text is too long for one.
    pub fn qr(&self, content: &str) -> Result<(), Failure> {
        let [paint, _] = self.paint;
        self.print(&qr(content, paint)?)
    }

    /// Says why the program ends. There is nobody left to tell if this fails.
    pub fn fail(&self, failure: &Failure) {
        if failure.is_closed() {
            return;
        }
        let Failure { exit, message, hint, .. } = failure;
        let event = Event::Error { exit: *exit as u8, message: message.clone(), hint: hint.clone() };
        let _ = self.show(&event);
    }
}

/// The JSON object of an event, in one line.
///
/// # Errors
/// None that can happen with these types.
pub fn json(event: &Event) -> Result<String, Failure> {
    let text = serde_json::to_string(event).map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
    Ok(json_escaped(&text))
}

/// The JSON Schema of a line of `--json`, with a line ending.
///
/// # Errors
/// None that can happen with these types.
pub fn schema() -> Result<String, Failure> {
    // Of what is written: a field that may be left out is not required.
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<Event>();
    let text = serde_json::to_string_pretty(&schema)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
    Ok(text + "\n")
}

fn written(mut to: impl Write, text: &str) -> Result<(), Failure> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::closed()),
        Err(error) => Err(Failure::failed(format!("cannot write the output: {error}"))),
    }
}

fn now() -> Timestamp {
    let ms = jiff::Timestamp::now().as_millisecond();
    Timestamp::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests;
