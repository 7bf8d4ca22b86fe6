//! What the fuzz targets do with their input; the main package replays the corpora through the same.
#![allow(dead_code, reason = "each target uses one of them")]

use downstream::protocol::file::CHUNK_MAX;
use downstream::protocol::keys::KeyUpload;
use downstream::protocol::request::{Sentence, parse};
use downstream::protocol::{
    ChunkLine, FileLine, Hello, LineFault, LineSplitter, MessageLine, ServerLine, SignalLine, UnreadLine, UploadLine,
    UserName, escaped,
};

/// The first byte chooses the limit, the second how the rest is cut.
pub(crate) fn line_splitter(data: &[u8]) {
    let [limit, cut, stream @ ..] = data else { return };
    let limit = usize::from(*limit) + 1;
    let mut whole = LineSplitter::new(limit);
    whole.fill(stream);
    let expected = drain(&mut whole, limit);

    let mut pieces = LineSplitter::new(limit);
    let mut lines = Vec::new();
    for piece in stream.chunks(usize::from(*cut) % 67 + 1) {
        pieces.fill(piece);
        lines.extend(drain(&mut pieces, limit));
    }
    assert_eq!(lines, expected, "the cuts changed the lines");
    assert_eq!(pieces.is_inside_line(), whole.is_inside_line());

    // Against the plainest reading of the rules.
    let (mut plain, mut rest) = (Vec::new(), stream);
    while let Some(end) = rest.iter().position(|&b| b == b'\n') {
        let (line, tail) = rest.split_at(end);
        plain.push(if end + 1 > limit {
            Err(LineFault::TooLong(limit))
        } else {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match std::str::from_utf8(line) {
                Err(_) => Err(LineFault::NotUtf8),
                Ok(text) => match text.chars().find(|c| matches!(c, '\0' | '\r')) {
                    None => Ok(text.to_owned()),
                    Some('\0') => Err(LineFault::Nul),
                    Some(_) => Err(LineFault::BareCr),
                },
            }
        });
        rest = tail.get(1..).unwrap_or_default();
    }
    if rest.len() >= limit {
        plain.push(Err(LineFault::TooLong(limit)));
    }
    assert_eq!(expected, plain);
}

fn drain(splitter: &mut LineSplitter, limit: usize) -> Vec<Result<String, LineFault>> {
    let mut lines = Vec::new();
    while let Some(line) = splitter.next_line() {
        lines.push(line.map(str::to_owned));
    }
    assert!(splitter.len() < limit, "{} bytes are kept of a line of at most {limit}", splitter.len());
    lines
}

/// A line as the splitter lets it through, or nothing.
pub(crate) fn request(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else { return };
    if line.contains(['\n', '\r', '\0']) {
        return;
    }
    if let Sentence::Command(command) = Sentence::read(line) {
        // A label that was read is written back in every answer.
        let head = command.head();
        assert_eq!(head.label, command.label);
    }
    let Some(read) = parse(line) else { return };
    match read {
        Ok(request) => {
            let printed = request.to_string();
            let again = parse(&printed);
            assert_eq!(again, Some(Ok(request)), "{line:?} was printed as {printed:?}");
        }
        Err(error) => {
            // The text goes to a terminal.
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains(['\n', '\r', '\0']), "{text:?}");
        }
    }
}

/// A record of `/keys put`, decoded.
pub(crate) fn key_record(data: &[u8]) {
    match KeyUpload::parse(data) {
        Ok(upload) => {
            assert_eq!(upload.to_bytes(), data);
            assert_eq!(upload.record.body_len() + 18, data.len());
        }
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}

/// A line from a server, which is a stranger: whatever is read out of it stands in it.
pub(crate) fn answer(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else { return };
    let shown = escaped(line);
    assert!(!shown.contains(|c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}')), "{shown:?}");
    let fields = match ServerLine::parse(line) {
        ServerLine::Other => return,
        ServerLine::Row(fields) | ServerLine::Event(fields) => {
            assert_eq!(Some(fields.whole()), line.get(2..));
            fields
        }
        ServerLine::Ok { verb, label, fields } | ServerLine::Err { verb, label, fields, .. } => {
            assert!(!verb.is_empty() && label != Some("") && line.contains(verb));
            fields
        }
    };
    // Words and text, put together again, are the line's end.
    let words = fields.words().collect::<Vec<_>>().join(" ");
    let again = match fields.text() {
        Some(text) if words.is_empty() => [":", text].concat(),
        Some(text) => [&words, " :", text].concat(),
        None => words,
    };
    assert!(line.ends_with(&again) || line.ends_with(&[" ", &again].concat()), "{line:?} was read as {again:?}");
    assert!(fields.keys().all(|(key, value)| line.contains(&[key, "=", value].concat())));

    let Ok(me) = UserName::parse("me") else { return };
    if let Ok(message) = MessageLine::read(&fields) {
        assert!(line.ends_with(message.body));
        let _ = message.conversation(&me);
    }
    if let Ok(file) = FileLine::read(&fields) {
        assert!(line.contains(&format!("file={}", file.file)) && line.ends_with(file.name));
        let _ = file.conversation(&me);
    }
    if let Ok(upload) = UploadLine::read(&fields) {
        assert!(line.contains(&format!("size={}", upload.size)) && line.ends_with(upload.name));
        let _ = upload.conversation(&me);
    }
    if let Ok(chunk) = ChunkLine::read(&fields)
        && let Ok(bytes) = chunk.bytes()
    {
        assert!((1..=CHUNK_MAX).contains(&bytes.len()), "{} bytes", bytes.len());
    }
    if let Ok(hello) = Hello::read(&fields) {
        assert!(hello.max_line <= 131_072 && hello.max_body <= 98_304);
    }
    let _ = (SignalLine::read(&fields), UnreadLine::read(&fields));
}
