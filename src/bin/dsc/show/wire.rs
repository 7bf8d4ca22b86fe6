//! Events as lines of the protocol, for programs that speak it through `dsc pipe`.

use super::escaped;
use crate::event::{Content, Event, Message, Reply};

/// An event as a line of the protocol: messages as the server would show them, had they not been sealed;
/// what only dsc knows as an event of the kind `dsc`, which readers that don't know it pass over.
pub fn wire_line(event: &Event, me: &str) -> String {
    let dsc = |kind: &str, subject: Option<&str>, text: &str| {
        let subject = subject.map(|subject| format!(" {subject}")).unwrap_or_default();
        format!("* dsc {kind}{subject} :{}", escaped(text))
    };
    match event {
        Event::Message(message) => format!("* {}", message_line(message, me)),
        Event::Unreadable { target, sender, id, code, text } => {
            let id = id.map(|id| format!(" id={id}")).unwrap_or_default();
            format!("* dsc unreadable {target} {sender}{id} code={code} :{}", escaped(text))
        }
        Event::Notice { kind, subject, text } => dsc(kind, subject.as_deref(), text),
        Event::Alarm { kind, subject, text } => dsc(&format!("alarm {kind}"), Some(subject), text),
        Event::Missing { target, sender, device, count } => {
            format!("* dsc missing {target} {sender} device={device} count={count}")
        }
        Event::Sent { target, id, .. } => format!("* dsc sent {target} id={id}"),
        Event::FileSent { target, name, size, id, .. } => {
            format!("* dsc file-sent {target} id={id} size={size} :{}", escaped(name))
        }
        Event::Server { kind, words, text } => {
            let words: String = words.iter().map(|word| format!(" {}", escaped(word))).collect();
            let text = text.as_ref().map(|text| format!(" :{}", escaped(text))).unwrap_or_default();
            format!("* {}{words}{text}", escaped(kind))
        }
        Event::Row(row) => format!("* dsc row :{}", escaped(&format!("{row:?}"))),
        Event::FileReceived { target, file, path, .. } => dsc("received", Some(&format!("{target} file={file}")), path),
        Event::Progress { target, name, done, size, .. } => {
            let size = size.map(|size| format!(" size={size}")).unwrap_or_default();
            format!("* dsc progress {target} done={done}{size} :{}", escaped(name))
        }
        Event::Reply(reply) => reply_lines(reply),
        Event::Error { exit, message, .. } => format!("* dsc error exit={exit} :{}", escaped(message)),
    }
}

pub fn reply_lines(reply: &Reply) -> String {
    let mut out: String = reply.rows.iter().map(|row| format!("- {}\n", escaped(row))).collect();
    let label = reply.label.as_ref().map(|label| format!("@{label}")).unwrap_or_default();
    out.push_str(if reply.ok { "OK " } else { "ERR " });
    out.push_str(&escaped(&reply.verb));
    out.push_str(&label);
    if let Some(code) = &reply.code {
        out.push_str(&format!(" {}", escaped(code)));
    }
    for (key, value) in &reply.keys {
        out.push_str(&format!(" {}={}", escaped(key), escaped(value)));
    }
    if let Some(text) = &reply.text {
        out.push_str(&format!(" :{}", escaped(text)));
    }
    out
}

/// `msg ID TIME TARGET SENDER key=value… :TEXT`
pub fn message_line(message: &Message, me: &str) -> String {
    let receiver = if message.own || message.target.starts_with('#') { message.target.as_str() } else { me };
    let mut line = format!(
        "msg {} {} {receiver} {} e2e={}",
        message.id.unwrap_or(0),
        message.time.as_deref().unwrap_or("-"),
        message.sender,
        if message.encrypted { "yes" } else { "no" }
    );
    let mut key = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            line.push_str(&format!(" {name}={}", escaped(value).replace(' ', "_")));
        }
    };
    key("device", message.device.as_deref());
    key("msg-id", message.msg_id.as_deref());
    let (kind, of, text) = match &message.content {
        Content::Text { text } => (None, None, text.clone()),
        Content::File { name, .. } => (Some("file"), None, name.clone()),
        Content::React { msg_id, text, .. } => (Some("react"), Some(msg_id), text.clone()),
        Content::Edit { msg_id, text } => (Some("edit"), Some(msg_id), text.clone()),
        Content::Delete { msg_id } => (Some("delete"), Some(msg_id), String::new()),
    };
    key("kind", kind);
    key("of", of.map(String::as_str));
    let shown = escaped(&text);
    if shown != text {
        key("escaped", Some("yes"));
    }
    line.push_str(" :");
    line.push_str(&shown);
    line
}
