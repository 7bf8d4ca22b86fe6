//! Reads what programs exchange beside messages: key records and entries of rosters, in base64.

use base64ct::{Base64, Encoding as _};

use super::args::{self, Args};
use super::{ParseError, Request, UserName, syntax};
use crate::protocol::keys::{DeviceName, KeyUpload, ROSTER_ENTRY_MAX, RecordFault};

pub(super) fn keys<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    let (word, value) = (args.next()?.to_ascii_lowercase(), args.take());
    match (word.as_str(), value) {
        ("get", Some(user)) => {
            let device = args.value("device").map(|hex| {
                DeviceName::parse(hex).ok_or_else(|| syntax("device= takes the 32 hexadecimal digits of a device id"))
            });
            let only_certificates = match args.value("only") {
                None => false,
                Some("certs") => true,
                Some(_) => return Err(syntax("only= takes certs")),
            };
            Ok(Request::KeysGet { user: UserName::parse(&user)?, device: device.transpose()?, only_certificates })
        }
        _ if !args.options.is_empty() => Err(args.usage()),
        ("put", Some(record)) => {
            let upload = KeyUpload::parse(&base64(&record)?).map_err(|fault| match fault {
                RecordFault::TooMany(max) => ParseError::TooMany(max, "keys of that kind in a record"),
                other => syntax(other.to_string()),
            });
            Ok(Request::KeysPut(upload?))
        }
        ("status", None) => Ok(Request::KeysStatus),
        _ => Err(args.usage()),
    }
}

pub(super) fn roster_add<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    let room = args.room()?;
    let number = args::number(&args.next()?).ok_or_else(|| syntax("an EPOCH is a decimal number"))?;
    let entry = base64(&args.next()?)?;
    if entry.is_empty() {
        return Err(syntax("the entry is empty"));
    }
    if entry.len() > ROSTER_ENTRY_MAX {
        return Err(ParseError::TooMany(ROSTER_ENTRY_MAX, "bytes in an entry"));
    }
    Ok(Request::RosterAdd { room, epoch: epoch(number), entry })
}

/// A place in a roster; what is too large for 32 bits counts as the largest, which no roster reaches.
pub(super) fn epoch(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What stands on a line as canonical base64 with padding.
fn base64(text: &str) -> Result<Vec<u8>, ParseError> {
    Base64::decode_vec(text).map_err(|_| syntax("that is no base64 (RFC 4648 §4, with padding, without line breaks)"))
}
