//! Secrets and questions: from the terminal without echo, or from a file or descriptor that an option
//! names. Never from arguments or the environment, which others on the machine can read.

use std::fs::File;
use std::io::{self, BufRead as _, Read, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use downstream::protocol::Password;
use zeroize::Zeroizing;

use crate::cli::Options;
use crate::error::Failure;
use crate::show::Output;
use crate::store::Passphrase;

/// The longest line that is read as a secret or an answer, in bytes: a longer one is a wrong file.
const LINE_MAX: usize = 4096;

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Terminal,
    StandardInput,
    File(PathBuf),
    Descriptor(u32),
}

/// Who is asked.
#[derive(Debug, Clone)]
pub struct Prompt {
    password: Source,
    passphrase: Source,
    yes: bool,
    out: Output,
}

impl Prompt {
    /// What the options say.
    ///
    /// # Errors
    /// Both secrets would come from standard input.
    pub fn new(options: &Options, out: Output) -> Result<Prompt, Failure> {
        let file = |path: &Option<PathBuf>| match path {
            None => Source::Terminal,
            Some(path) if path == Path::new("-") => Source::StandardInput,
            Some(path) => Source::File(path.clone()),
        };
        let password = file(&options.password_file);
        let passphrase = match options.pass_fd {
            Some(0) => Source::StandardInput,
            Some(number) => Source::Descriptor(number),
            None => file(&options.passphrase_file),
        };
        if password == Source::StandardInput && passphrase == Source::StandardInput {
            let failure = Failure::usage("password and passphrase cannot both come from standard input");
            return Err(failure.hint("give one of them in a file, or by --pass-fd"));
        }
        Ok(Prompt { password, passphrase, yes: options.yes, out })
    }

    /// The account's password.
    ///
    /// # Errors
    /// Nobody to ask, or a file that cannot be read or is no password.
    pub fn password(&self, account: &str) -> Result<Password, Failure> {
        let questions = [Question::asked(format!("Password of {account}: "))];
        let [password] = self.secrets(&self.password, PASSWORD, questions)?;
        Ok(Password(password))
    }

    /// A password for a new account: asked for twice.
    ///
    /// # Errors
    /// As [`Prompt::password`]; also if the two differ.
    pub fn new_password(&self, account: &str) -> Result<Password, Failure> {
        let questions = [Question::new_secret(format!("New password of {account}: "))];
        let [password] = self.secrets(&self.password, PASSWORD, questions)?;
        Ok(Password(password))
    }

    /// The old and a new password: the first and the second line of a file.
    ///
    /// # Errors
    /// As [`Prompt::new_password`].
    pub fn change_password(&self, account: &str) -> Result<[Password; 2], Failure> {
        let old = Question::asked(format!("Old password of {account}: "));
        let new = Question::new_secret("New password: ".to_owned());
        Ok(self.secrets(&self.password, PASSWORD, [old, new])?.map(Password))
    }

    /// The passphrase of the key store.
    ///
    /// # Errors
    /// As [`Prompt::password`].
    pub fn passphrase(&self) -> Result<Passphrase, Failure> {
        let questions = [Question::asked("Passphrase of the key store: ".to_owned())];
        let [passphrase] = self.secrets(&self.passphrase, PASSPHRASE, questions)?;
        as_passphrase(&passphrase)
    }

    /// A passphrase for a new key store: asked for twice.
    ///
    /// # Errors
    /// As [`Prompt::new_password`].
    pub fn new_passphrase(&self) -> Result<Passphrase, Failure> {
        let questions = [Question::new_secret("New passphrase of the key store: ".to_owned())];
        let [passphrase] = self.secrets(&self.passphrase, PASSPHRASE, questions)?;
        as_passphrase(&passphrase)
    }

    /// The old and a new passphrase: the first and the second line of a file.
    ///
    /// # Errors
    /// As [`Prompt::new_password`].
    pub fn change_passphrase(&self) -> Result<[Passphrase; 2], Failure> {
        let old = Question::asked("Old passphrase: ".to_owned());
        let new = Question::new_secret("New passphrase: ".to_owned());
        let [old, new] = self.secrets(&self.passphrase, PASSPHRASE, [old, new])?;
        Ok([as_passphrase(&old)?, as_passphrase(&new)?])
    }

    /// Whether a person would be asked for the passphrase, and so may be asked again after a slip.
    pub fn types_passphrase(&self) -> bool {
        self.passphrase == Source::Terminal
    }

    /// Asks before something that cannot be taken back. `--yes` is the answer of programs.
    ///
    /// # Errors
    /// There is no terminal and no `--yes`; or the answer was no: what was asked for is not done.
    pub fn confirm(&self, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        let answer = self.line(&format!("{question} [y/N] "), "--yes")?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::failed("not done, as you did not answer yes")),
        }
    }

    /// Asks for a line on the terminal; `instead` is the option that would say it.
    ///
    /// # Errors
    /// There is no terminal.
    pub fn line(&self, question: &str, instead: &str) -> Result<String, Failure> {
        let asked = || {
            // Not standard input: what is piped in there is not an answer to a question.
            let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
            terminal.write_all(question.as_bytes())?;
            let mut answer = String::new();
            io::BufReader::new(terminal.take(LINE_MAX as u64)).read_line(&mut answer)?;
            Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
        };
        asked().map_err(|error| no_terminal(&error, "an answer", instead))
    }

    /// As many secrets as there are questions, from one source.
    fn secrets<const N: usize>(
        &self,
        source: &Source,
        kind: Kind,
        questions: [Question; N],
    ) -> Result<[Zeroizing<String>; N], Failure> {
        let mut file: Option<(String, Box<dyn Read>)> = match source {
            Source::Terminal => None,
            Source::StandardInput => Some(("standard input".to_owned(), Box::new(standard_input()?))),
            Source::File(path) => Some((path.display().to_string(), Box::new(self.open(path)?))),
            // Every open descriptor has a name here; opening it by number would need unsafe code.
            Source::Descriptor(number) => {
                Some((format!("descriptor {number}"), Box::new(opened(Path::new(&format!("/dev/fd/{number}")))?)))
            }
        };
        let mut found = Vec::with_capacity(N);
        for question in questions {
            let which = if found.is_empty() { "" } else { "new " };
            found.push(match &mut file {
                None => question.ask(kind)?,
                Some((name, file)) => first_line(file.as_mut()).map_err(|why| {
                    let failure = Failure::failed(format!("cannot read the {which}{} from {name}: {why}", kind.name));
                    if N > 1 {
                        failure.hint("the first line is the old one, the second line the new one")
                    } else {
                        failure
                    }
                })?,
            });
        }
        found.try_into().map_err(|_| Failure::failed("not as many answers as questions"))
    }

    fn open(&self, path: &Path) -> Result<File, Failure> {
        let file = opened(path)?;
        let readable = file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o004 != 0);
        if readable {
            let path = path.display();
            self.out.notice("file-mode", format!("every user of this machine can read {path}; chmod 600 it"))?;
        }
        Ok(file)
    }
}

fn as_passphrase(typed: &Zeroizing<String>) -> Result<Passphrase, Failure> {
    let bytes = Zeroizing::new(typed.as_bytes().to_vec());
    Passphrase::new(bytes).ok_or_else(|| Failure::failed("the passphrase is empty"))
}

/// What a secret is called, and the option that names its file.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    option: &'static str,
}

const PASSWORD: Kind = Kind { name: "password", option: "--password-file FILE" };
const PASSPHRASE: Kind = Kind { name: "passphrase", option: "--passphrase-file FILE" };

struct Question {
    text: String,
    /// A secret that is new is asked for twice: nobody sees a slip without echo.
    twice: bool,
}

impl Question {
    fn asked(text: String) -> Question {
        Question { text, twice: false }
    }

    fn new_secret(text: String) -> Question {
        Question { text, twice: true }
    }

    fn ask(&self, kind: Kind) -> Result<Zeroizing<String>, Failure> {
        let ask = |text: &str| {
            let answer = rpassword::prompt_password(text).map(Zeroizing::new);
            answer.map_err(|error| no_terminal(&error, &format!("the {}", kind.name), kind.option))
        };
        let first = ask(&self.text)?;
        if first.is_empty() {
            return Err(Failure::failed(format!("the {} was not entered", kind.name)));
        }
        if self.twice && ask("Again: ")? != first {
            return Err(Failure::failed(format!("the two {}s differ; nothing was changed", kind.name)));
        }
        Ok(first)
    }
}

fn no_terminal(error: &io::Error, what: &str, instead: &str) -> Failure {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Failure::failed(format!("{what} was not entered"));
    }
    Failure::usage(format!("there is no terminal to ask for {what} on ({error})")).hint(format!("use {instead}"))
}

fn opened(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::failed(format!("cannot open {}: {error}", path.display())))
}

/// Standard input without a buffer: what stands behind the secret stays there for others to read.
fn standard_input() -> Result<File, Failure> {
    let copy = io::stdin().as_fd().try_clone_to_owned();
    copy.map(File::from).map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))
}

/// A line without its ending, read byte by byte so that nothing behind it is taken.
fn first_line(file: &mut dyn Read) -> Result<Zeroizing<String>, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LINE_MAX));
    let mut byte = Zeroizing::new([0]);
    loop {
        match file.read(byte.as_mut_slice()) {
            Ok(0) => break,
            Ok(_) if byte.as_slice() == b"\n" => break,
            Ok(_) if bytes.len() == LINE_MAX => return Err(format!("the line is longer than {LINE_MAX} bytes")),
            Ok(_) => bytes.extend_from_slice(byte.as_slice()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let line = text.strip_suffix('\r').unwrap_or(text);
    match line {
        "" => Err("the line is empty".to_owned()),
        line if line.contains(['\r', '\0']) => Err("the line has a carriage return or a NUL in it".to_owned()),
        line => Ok(Zeroizing::new(line.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ColorChoice;

    fn prompt(options: Options) -> Result<Prompt, Failure> {
        Prompt::new(&options, Output::new(false, true, ColorChoice::Never))
    }

    fn line_of(bytes: &[u8]) -> Result<String, String> {
        first_line(&mut &*bytes).map(|line| line.to_string())
    }

    #[test]
    fn a_secret_is_the_first_line() {
        assert_eq!(line_of(b"secret one\n"), Ok("secret one".to_owned()));
        assert_eq!(line_of(b"secret\r\nmore"), Ok("secret".to_owned()));
        assert_eq!(line_of(b" spaces "), Ok(" spaces ".to_owned()));
        for bad in [&b""[..], b"\nsecond\n", b"a\rb\n", b"a\0b", b"\xff\n", &[b'x'; LINE_MAX + 1]] {
            assert!(line_of(bad).is_err(), "{bad:?}");
        }
        assert!(line_of(&[b'x'; LINE_MAX]).is_ok());
    }

    #[test]
    fn nothing_behind_the_line_is_taken() {
        let mut input = &b"secret\nhello\n"[..];
        first_line(&mut input).unwrap();
        assert_eq!(input, b"hello\n");
    }

    #[test]
    fn files_give_one_line_for_each_question() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pw");
        std::fs::write(&path, "old one\nnew one\n").unwrap();
        let asked =
            prompt(Options { password_file: Some(path.clone()), passphrase_file: Some(path), ..Options::default() });
        let asked = asked.unwrap();
        assert_eq!(asked.password("alice").unwrap().0.as_str(), "old one");
        assert_eq!(asked.change_password("alice").unwrap().map(|p| p.0.to_string()), ["old one", "new one"]);
        assert!(!asked.types_passphrase());
        for passphrase in asked.change_passphrase().unwrap().into_iter().chain([asked.new_passphrase().unwrap()]) {
            assert!(!format!("{passphrase:?}").contains("one"));
        }
    }

    #[test]
    fn standard_input_is_one_secret_at_most() {
        let stdin = || Some(PathBuf::from("-"));
        let both = Options { password_file: stdin(), passphrase_file: stdin(), ..Options::default() };
        assert_eq!(prompt(both).unwrap_err().exit, crate::error::Exit::Usage);
        let both = Options { password_file: stdin(), pass_fd: Some(0), ..Options::default() };
        assert!(prompt(both).is_err());
        let one = Options { password_file: stdin(), pass_fd: Some(3), ..Options::default() };
        assert!(prompt(one).is_ok());
    }

    #[test]
    fn yes_answers_questions() {
        assert_eq!(prompt(Options { yes: true, ..Options::default() }).unwrap().confirm("Sure?"), Ok(()));
    }
}
