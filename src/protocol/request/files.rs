//! Reads the commands that carry files.

use std::borrow::Cow;

use super::args::{self, Args};
use super::{ParseError, Request, parse_hex, syntax};
use crate::protocol::file::{CHUNK_MAX, CHUNK_TEXT_MAX, FileId, FileName, GET_DEFAULT, GET_MAX};

pub(super) fn send_file<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    let (target, name) = (args.target()?, FileName::parse(&args.next()?)?);
    let size = args::number(&args.next()?).ok_or_else(|| syntax("a SIZE is a decimal number of bytes"))?;
    let sha256 = digest(&args.next()?)?;
    Ok(Request::SendFile { target, name, size, sha256 })
}

pub(super) fn chunk<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    let file = file(args)?;
    let offset = args::number(&args.next()?).ok_or_else(|| syntax("an OFFSET is a decimal number of bytes"))?;
    let data = match args.next()? {
        // Whatever else is no base64 is found when it is decoded; these would not read back as they are written.
        Cow::Borrowed(data) if memchr::memchr3(b' ', b'"', b'\\', data.as_bytes()).is_none() => data,
        _ => return Err(syntax("the data is base64, without quotes")),
    };
    // The longest text stands for a byte or two more than may be where it has no padding.
    let padding = data.bytes().rev().take(2).filter(|&byte| byte == b'=').count();
    match data.len() {
        0 => Err(syntax("the chunk is empty")),
        1..=CHUNK_TEXT_MAX if data.len() / 4 * 3 <= CHUNK_MAX + padding => Ok(Request::Chunk { file, offset, data }),
        _ => Err(ParseError::TooMany(CHUNK_MAX, "bytes in a chunk")),
    }
}

pub(super) fn get_file<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    let file = file(args)?;
    let (offset, length) = (args.number("offset")?.unwrap_or(0), args.number("length")?.unwrap_or(GET_DEFAULT));
    match length {
        0 => Err(syntax("length= is at least 1")),
        1..=GET_MAX => Ok(Request::GetFile { file, offset, length }),
        _ => Err(ParseError::TooMany(GET_MAX as usize, "bytes at a time")),
    }
}

pub(super) fn files<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    let target = args.take().map(|target| super::Target::parse(&target)).transpose()?;
    let after = FileId(args.number("after")?.unwrap_or(0));
    let sha256 = args.value("sha256").map(digest).transpose()?;
    Ok(Request::Files { target, after, sha256 })
}

pub(super) fn drop_file<'a>(args: &mut Args<'a>) -> Result<Request<'a>, ParseError> {
    Ok(Request::DropFile { file: file(args)? })
}

fn file(args: &mut Args<'_>) -> Result<FileId, ParseError> {
    args::number(&args.next()?).map(FileId).ok_or_else(|| syntax("a file is named by the number after file="))
}

fn digest(text: &str) -> Result<[u8; 32], ParseError> {
    parse_hex(text).ok_or_else(|| syntax("a SHA256 is 64 hexadecimal digits"))
}
