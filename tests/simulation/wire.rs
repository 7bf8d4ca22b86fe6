//! Server lines as protocol.md describes them, read by rules of their own.

use downstream::protocol::{Code, DeviceName, RoomName, Target, Timestamp, UserName};

/// A server line, split.
#[derive(Debug)]
pub struct ServerLine<'a> {
    /// `OK`, `ERR`, `-` or `*`.
    pub class: &'a str,
    pub words: Vec<&'a str>,
    pub text: Option<&'a str>,
}

impl<'a> ServerLine<'a> {
    /// Splits a line without its ending.
    pub fn read(line: &'a str) -> Result<ServerLine<'a>, String> {
        if line.contains(['\0', '\r', '\n']) {
            return Err("a control character of the line discipline".into());
        }
        let (class, mut rest) = line.split_once(' ').ok_or("no space behind the first word")?;
        if !matches!(class, "OK" | "ERR" | "-" | "*") {
            return Err(format!("begins with {class:?}"));
        }
        let mut words = Vec::new();
        let mut text = None;
        loop {
            if let Some(last) = rest.strip_prefix(':').filter(|_| !words.is_empty()) {
                text = Some(last);
                break;
            }
            let (word, behind) = match rest.split_once(' ') {
                Some((word, behind)) => (word, Some(behind)),
                None => (rest, None),
            };
            if word.is_empty() {
                return Err("two spaces, or one at the end".into());
            }
            words.push(word);
            match behind {
                Some(behind) => rest = behind,
                None => break,
            }
        }
        // `/help` rows are the one free text without a colon.
        Ok(ServerLine { class, words, text })
    }

    pub fn word(&self, index: usize) -> Result<&'a str, String> {
        self.words.get(index).copied().ok_or_else(|| format!("word {index} is missing"))
    }

    pub fn key(&self, key: &str) -> Option<&'a str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    pub fn number(&self, key: &str) -> Result<u64, String> {
        let value = self.key(key).ok_or_else(|| format!("{key}= is missing"))?;
        value.parse().map_err(|_| format!("{key}={value} is no number"))
    }

    fn counts(&self, least: usize, most: usize) -> Result<(), String> {
        let count = self.words.len();
        if (least..=most).contains(&count) { Ok(()) } else { Err(format!("{count} words, not {least} to {most}")) }
    }

    /// Checks the form of an event. Whom it concerns is the oracle's business.
    pub fn check_event(&self) -> Result<(), String> {
        let user = |index| self.word(index).and_then(|word| UserName::parse(word).map_err(|e| e.to_string())).map(drop);
        let room = |index| self.word(index).and_then(|word| RoomName::parse(word).map_err(|e| e.to_string())).map(drop);
        let target = |index| self.word(index).and_then(|word| Target::parse(word).map_err(|e| e.to_string())).map(drop);
        let no_text = || self.text.map_or(Ok(()), |_| Err("a text where none belongs".to_owned()));
        let a_text = || self.text.map(drop).ok_or_else(|| "no text".to_owned());
        match self.word(0)? {
            "hello" => {
                self.number("max-line")?;
                self.number("max-body")?;
                self.number("max-file")?;
                (self.word(1)? == "downstream/1").then_some(()).ok_or("not our protocol")?;
                a_text()
            }
            "msg" => {
                self.counts(5, 6)?;
                self.message()?;
                self.words.get(5).map_or(Ok(()), |word| (*word == "missed=yes").then_some(()).ok_or("unknown key"))?;
                Ok(())
            }
            "file" => {
                self.counts(8, 10)?;
                self.message()?;
                (self.number("file")? > 0).then_some(()).ok_or("no file")?;
                self.number("size")?;
                self.key("sha256").filter(|hash| hash.len() == 64).map(drop).ok_or_else(|| "no hash".to_owned())
            }
            "unread" => {
                self.counts(5, 5)?;
                target(1)?;
                (self.number("first")? <= self.number("last")? && self.number("count")? > 0)
                    .then_some(())
                    .ok_or("an empty unread")?;
                no_text()
            }
            "signal" => self.counts(4, 4).and(self.signal().map(drop)),
            "roster" => {
                self.word(2)?.parse::<u32>().map_err(|e| e.to_string())?;
                self.counts(3, 3).and(room(1)).and(no_text())
            }
            "keys-low" => {
                let device = self.key("device").and_then(DeviceName::parse);
                device.ok_or("no device")?;
                (self.number("opk")? < 25 || self.number("pqk")? < 25).then_some(()).ok_or("nothing is low")?;
                self.counts(4, 4).and(no_text())
            }
            "join" => self.counts(3, 3).and(room(1)).and(user(2)).and(no_text()),
            "leave" => self.counts(3, 3).and(room(1)).and(user(2)),
            "kick" | "ban" => self.counts(4, 4).and(room(1)).and(user(2)).and(user(3)),
            "unban" | "deop" => self.counts(4, 4).and(room(1)).and(user(2)).and(user(3)),
            "op" => self.counts(4, 4).and(room(1)).and(user(2)).and(user(3)),
            "invite" => self.counts(3, 3).and(room(1)).and(user(2)).and(no_text()),
            "topic" => self.counts(3, 3).and(room(1)).and(user(2)).and(a_text()),
            "typing" => self.counts(3, 3).and(target(1)).and(user(2)).and(no_text()),
            "online" | "offline" => self.counts(2, 2).and(user(1)).and(no_text()),
            "away" => self.counts(2, 2).and(user(1)),
            "seen" => {
                self.number("id")?;
                self.counts(4, 4).and(target(1)).and(user(2)).and(no_text())
            }
            "login" => {
                self.counts(2, 2)?;
                self.word(1)?.parse::<std::net::IpAddr>().map_err(|e| e.to_string())?;
                no_text()
            }
            "notice" => self.counts(1, 1).and(a_text()),
            "bye" => {
                self.counts(2, 2)?;
                let known = ["replaced", "shutdown", "idle", "kicked", "too-slow", "error"];
                known.contains(&self.word(1)?).then_some(()).ok_or_else(|| "an unknown reason".to_owned())
            }
            kind => Err(format!("an unknown event {kind}")),
        }
    }

    /// The parts of `msg ID TIME TARGET SENDER … :BODY`.
    pub fn message(&self) -> Result<(u64, Timestamp, &'a str, &'a str, &'a str), String> {
        let id = self.word(1)?.parse().map_err(|_| "no id")?;
        let time = Timestamp::parse(self.word(2)?).ok_or("no time")?;
        Target::parse(self.word(3)?).map_err(|e| e.to_string())?;
        UserName::parse(self.word(4)?).map_err(|e| e.to_string())?;
        Ok((id, time, self.word(3)?, self.word(4)?, self.text.ok_or("no body")?))
    }

    /// The parts of `signal ID TIME SENDER :BODY`.
    pub fn signal(&self) -> Result<(u64, Timestamp, &'a str, &'a str), String> {
        let id = self.word(1)?.parse().map_err(|_| "no id")?;
        let time = Timestamp::parse(self.word(2)?).ok_or("no time")?;
        UserName::parse(self.word(3)?).map_err(|e| e.to_string())?;
        Ok((id, time, self.word(3)?, self.text.ok_or("no body")?))
    }

    /// Checks the form of an `ERR`; `words[0]` is the head.
    pub fn check_error(&self) -> Result<(), String> {
        let code = self.word(1)?;
        if !Code::ALL.iter().any(|known| known.as_str() == code) {
            return Err(format!("an unknown code {code}"));
        }
        match code {
            "rate-limited" | "busy" if self.number("retry-after")? == 0 => return Err("retry-after=0".into()),
            "quota" | "too-long" => self.number("max").map(drop)?,
            _ => {}
        }
        self.text.map(drop).ok_or_else(|| "an error without words".to_owned())
    }
}
