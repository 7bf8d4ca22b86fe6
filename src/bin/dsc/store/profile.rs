//! Who this home belongs to, and how it logs in.

use downstream::e2e::error::Damaged;
use downstream::protocol::UserName;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::codec::{Fields, Row};

/// A login token. Wiped when dropped, not shown by `Debug`.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// A token, as the server gave it.
    pub fn new(token: Zeroizing<String>) -> Token {
        Token(token)
    }

    /// The token itself, for the login.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Token) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Token {}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Who this home belongs to, and how it logs in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// `HOST:PORT`.
    pub server: Option<String>,
    /// The account.
    pub user: Option<UserName>,
    /// What is used in place of the password after the first login.
    pub token: Option<Token>,
    /// Under which name the server lists the token.
    pub token_name: Option<String>,
}

impl Profile {
    pub(super) fn to_row(&self) -> Zeroizing<Vec<u8>> {
        Row::new()
            .maybe(self.server.as_ref().map(String::as_bytes))
            .maybe(self.user.as_ref().map(|user| user.as_str().as_bytes()))
            .maybe(self.token.as_ref().map(|token| token.0.as_bytes()))
            .maybe(self.token_name.as_ref().map(String::as_bytes))
            .done()
    }

    pub(super) fn from_row(row: &[u8]) -> Result<Profile, Damaged> {
        let mut fields = Fields::of(row);
        let server = fields.maybe_text()?.map(str::to_owned);
        let user = fields.maybe_text()?.map(|user| UserName::parse(user).map_err(|_| Damaged)).transpose()?;
        let token = fields.maybe_text()?.map(|token| Token(Zeroizing::new(token.to_owned())));
        let token_name = fields.maybe_text()?.map(str::to_owned);
        fields.end()?;
        Ok(Profile { server, user, token, token_name })
    }
}
