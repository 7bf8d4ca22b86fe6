//! What the client's core needs of a server: an answer to each command. The network gives it
//! ([`crate::net`]), a person at `openssl s_client` does (then every question is the exact command to
//! type), and tests do.

use zeroize::Zeroizing;

use crate::error::{Exit, Failure};

/// A server that is asked one command after the other.
pub trait Server {
    /// Sends commands (protocol lines that begin with `/`, without label and ending) all at once and
    /// waits for the answer to each, in order. Events that come meanwhile are kept.
    ///
    /// # Errors
    /// [`Lost`].
    fn ask_all(&mut self, commands: &[&str]) -> Result<Vec<Answer>, Lost>;

    /// Sends commands as `next` makes them, each as soon as there is room on the line, and hands every answer to
    /// `take`, in order: for transfers, which have more commands than are made at once. Ends when `next` has no
    /// more (`None`) and all are answered, or with the first failure of either; what is on its way then is
    /// answered and not looked at.
    ///
    /// # Errors
    /// [`Lost`] as a failure, and what `next` and `take` say.
    fn stream(
        &mut self,
        next: &mut dyn FnMut() -> Result<Option<String>, Failure>,
        take: &mut dyn FnMut(Answer) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        while let Some(command) = next()? {
            take(self.ask(&command)?)?;
        }
        Ok(())
    }

    /// Whether there is nobody to answer: then every question becomes a command for a person to type.
    fn is_offline(&self) -> bool {
        false
    }

    /// One command.
    ///
    /// # Errors
    /// [`Lost`].
    fn ask(&mut self, command: &str) -> Result<Answer, Lost> {
        self.ask_all(&[command])?.pop().ok_or_else(|| Lost::Network("the server gave no answer".into()))
    }
}

/// The rows of a command and its one reply.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Rows, without their `- `.
    pub rows: Vec<String>,
    /// `OK` or `ERR`.
    pub reply: Result<Reply, Refusal>,
}

/// `OK verb key=value… :text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// `key=value` in their order.
    pub keys: Vec<(String, String)>,
    /// What stands behind ` :`.
    pub text: Option<String>,
}

impl Reply {
    /// The value of a key.
    pub fn key(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// `ERR verb code key=value… :text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The command's verb.
    pub verb: String,
    /// The stable code.
    pub code: String,
    /// `key=value` in their order.
    pub keys: Vec<(String, String)>,
    /// What the server says to people.
    pub text: String,
}

impl Refusal {
    /// Whether the server may take the same a little later.
    pub fn is_temporary(&self) -> bool {
        matches!(self.code.as_str(), "rate-limited" | "busy" | "internal")
    }

    /// In how many seconds, as the server says.
    pub fn retry_after(&self) -> Option<u64> {
        self.key("retry-after")?.parse().ok()
    }

    /// The value of a key.
    pub fn key(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let Refusal { verb, code, text, .. } = &refusal;
        let mut failure = Failure::new(Exit::Refused, format!("the server refused /{verb}: {code}: {text}"));
        failure.temporary = refusal.is_temporary();
        match refusal.key("retry-after") {
            Some(seconds) => failure.hint(format!("try again in {seconds} s")),
            None => failure,
        }
    }
}

/// There is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// There is no connection: these are the commands that would have been sent.
    #[error("not connected")]
    Offline(Vec<String>),
    /// The connection broke, or the server does not keep to the protocol.
    #[error("{0}")]
    Network(String),
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Failure {
        match lost {
            Lost::Offline(commands) => {
                let failure = Failure::new(Exit::NoSession, "this needs an answer of the server first");
                failure.hint(format!(
                    "type this to the server and give its rows to `dsc import`:\n{}",
                    commands.join("\n")
                ))
            }
            Lost::Network(why) => Failure::new(Exit::Network, why),
        }
    }
}

/// A command from its verb and arguments, each in quotes where it needs them. Wiped when dropped: one of
/// them may be a password.
pub fn command(words: &[&str]) -> Zeroizing<String> {
    // Twice the length holds every escape; a text that moved to a larger place would leave a copy behind.
    let mut line = Zeroizing::new(String::with_capacity(words.iter().map(|word| 2 * word.len() + 3).sum()));
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        if !word.is_empty() && !word.contains([' ', '"', '\\']) {
            line.push_str(word);
            continue;
        }
        line.push('"');
        for c in word.chars() {
            if matches!(c, '"' | '\\') {
                line.push('\\');
            }
            line.push(c);
        }
        line.push('"');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_they_were_meant() {
        for (words, line) in [
            (&["/login", "alice", "secret"][..], "/login alice secret"),
            (&["/login", "alice", "two words"], "/login alice \"two words\""),
            (&["/login", "alice", "a\"b\\c"], "/login alice \"a\\\"b\\\\c\""),
            (&["/users", ""], "/users \"\""),
        ] {
            assert_eq!(command(words).as_str(), line);
        }
    }

    #[test]
    fn every_password_arrives() {
        use downstream::protocol::{Request, request};
        for secret in ["plain-password", "two  words ", " lead", "a=b", "quo\"te\\", "\"", "ümlaut :text", "token:x"] {
            let line = command(&["/login", "alice", secret]);
            let Some(Ok(Request::Login { password: Some(password), .. })) = request::parse(&line) else {
                panic!("{line:?}")
            };
            assert_eq!(password.0.as_str(), secret);
        }
    }
}
