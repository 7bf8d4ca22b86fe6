//! What every command works with: the home, the settings, the options, and the way to print and to ask.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use downstream::protocol::UserName;

use crate::cli::Options;
use crate::error::Failure;
use crate::net::Endpoint;
use crate::prompt::Prompt;
use crate::settings::{self, Settings};
use crate::show::Output;
use crate::store::{self, Store};

/// One run of `dsc`.
pub struct Context {
    /// Where everything is kept. It may not exist yet: [`Context::make_home`].
    pub home: PathBuf,
    /// What `dsc.toml` says.
    pub settings: Settings,
    /// What the command line says.
    pub options: Options,
    /// Prints.
    pub out: Output,
    /// Asks.
    pub prompt: Prompt,
    /// The key store, once it was opened: [`Context::store`].
    pub(super) store: Option<Store>,
}

impl Context {
    /// Finds the home and reads its settings.
    ///
    /// # Errors
    /// [`Exit::Usage`](crate::error::Exit::Usage): no home can be told, or its settings are wrong.
    pub fn new(options: Options) -> Result<Context, Failure> {
        let home = home(&options)?;
        let settings = Settings::load(&home)?;
        let color = options.color.unwrap_or(settings.color);
        // NO_COLOR stands between the flag and the file.
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = if options.color.is_none() && no_color { crate::cli::ColorChoice::Never } else { color };
        let out = Output::new(options.json, options.quiet, color);
        let prompt = Prompt::new(&options, out)?;
        Ok(Context { home, settings, options, out, prompt, store: None })
    }

    /// Makes the home, for its owner alone, if it is not there.
    ///
    /// # Errors
    /// It cannot be made; or it is there, open to others, and holds more than settings.
    pub fn make_home(&self) -> Result<(), Failure> {
        self.close_home()?;
        Ok(store::prepare(&self.home)?)
    }

    /// Closes a home that is open to others and holds settings at most, as one that a person has made to
    /// put `dsc.toml` into it. One that holds more is left alone: it may be there for others.
    pub(super) fn close_home(&self) -> Result<(), Failure> {
        close(&self.home).map_err(|error| Failure::failed(format!("cannot use {}: {error}", self.home.display())))
    }

    /// The server: of the command line, else of the settings.
    ///
    /// # Errors
    /// Neither names one.
    pub fn server(&self) -> Result<Endpoint, Failure> {
        let server = self.options.server.as_ref().or(self.settings.server.as_ref());
        server.cloned().ok_or_else(|| {
            Failure::usage("no server is known")
                .hint("name it with --server HOST; `dsc register` or `dsc login` keep it")
        })
    }

    /// The account: of the command line, else of the settings.
    ///
    /// # Errors
    /// Neither names one.
    pub fn user(&self) -> Result<UserName, Failure> {
        let user = self.options.account.as_ref().or(self.settings.user.as_ref());
        user.cloned().ok_or_else(|| {
            Failure::usage("no account is known")
                .hint("name it with --user NAME; `dsc register` or `dsc login` keep it")
        })
    }

    /// A PEM file with further roots of trust.
    pub fn ca(&self) -> Option<&Path> {
        self.options.ca.as_deref().or(self.settings.ca.as_deref())
    }

    /// Where files go: what the settings say, else the person's own folder for that, else one beside where dsc
    /// was called.
    pub fn downloads(&self) -> PathBuf {
        let set = self.settings.downloads.clone();
        // A file that says where folders are and cannot be read says nothing.
        set.or_else(|| xdg_user::downloads().ok().flatten()).unwrap_or_else(|| PathBuf::from("downloads"))
    }

    /// Keeps server and account in the settings, so that no other command needs to be told.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&mut self, server: &Endpoint, user: &UserName) -> Result<(), Failure> {
        self.make_home()?;
        settings::remember(&self.home, server, user)?;
        self.settings.server = Some(server.clone());
        self.settings.user = Some(user.clone());
        Ok(())
    }
}

/// `--home`, else `$DSC_HOME`, else `dsc` in the data directory of the XDG base directory specification.
fn home(options: &Options) -> Result<PathBuf, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = options.home.clone().or_else(|| variable("DSC_HOME"));
    let found = named.or_else(|| {
        // The specification has relative paths ignored.
        let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
        data.or_else(|| std::env::home_dir().map(|home| home.join(".local/share"))).map(|data| data.join("dsc"))
    });
    let found = found.filter(|path| !path.as_os_str().is_empty());
    let path = found.ok_or_else(|| {
        Failure::usage("there is no home directory to keep keys in").hint("name one with --home DIR or $DSC_HOME")
    })?;
    std::path::absolute(&path).map_err(|error| Failure::usage(format!("cannot use {}: {error}", path.display())))
}

fn close(home: &Path) -> io::Result<()> {
    let found = match std::fs::metadata(home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if found.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    for entry in std::fs::read_dir(home)? {
        if entry?.file_name() != settings::FILE {
            return Ok(());
        }
    }
    std::fs::set_permissions(home, Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { home: Some(directory.path().join("a/b")), ..Options::default() };
        let context = Context::new(options).unwrap();
        let mode = || std::fs::metadata(&context.home).unwrap().permissions().mode() & 0o777;
        let open = || std::fs::set_permissions(&context.home, Permissions::from_mode(0o755)).unwrap();
        context.make_home().unwrap();
        assert_eq!(mode(), 0o700);
        std::fs::write(context.home.join(settings::FILE), "").unwrap();
        open();
        context.make_home().unwrap();
        assert_eq!(mode(), 0o700, "one with nothing but settings is closed");
        std::fs::write(context.home.join("something"), "").unwrap();
        context.make_home().unwrap();
        open();
        assert!(context.make_home().unwrap_err().hint.unwrap().contains("chmod 700"));
        assert_eq!(mode(), 0o755, "what others may use is left to them");
    }

    #[test]
    fn the_command_line_comes_before_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::write(path.join(settings::FILE), "server = \"file.example\"\nca = \"f.pem\"\n").unwrap();
        let options = Options { home: Some(path.to_owned()), ..Options::default() };
        let context = Context::new(options.clone()).unwrap();
        assert_eq!(context.server().unwrap().host(), "file.example");
        assert_eq!(context.ca(), Some(path.join("f.pem").as_path()));
        assert_eq!(context.user().unwrap_err().exit, crate::error::Exit::Usage);
        let server = Some(Endpoint::parse("flag.example").unwrap());
        let mut context = Context::new(Options { server, ca: Some("c.pem".into()), ..options.clone() }).unwrap();
        assert_eq!(context.server().unwrap().host(), "flag.example");
        assert_eq!(context.ca(), Some(Path::new("c.pem")));
        let (server, user) = (context.server().unwrap(), UserName::parse("alice").unwrap());
        context.remember(&server, &user).unwrap();
        assert_eq!(Context::new(options).unwrap().user().unwrap(), user);
    }
}
