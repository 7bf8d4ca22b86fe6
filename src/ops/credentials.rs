//! What proves who somebody is, and work for the password hasher.

use std::fmt;

use super::AccountId;
use crate::protocol::Password;

/// What is kept of a password: Argon2id (RFC 9106) with these parameters, keyed with the server's
/// secret. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
    /// Random salt.
    pub salt: [u8; 16],
    /// The tag.
    pub hash: [u8; 32],
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// The least memory that an operator may choose, in KiB: below about 7 MiB the attack on stolen
/// verifiers gets cheap (OWASP's weakest recommended setting is 7168 KiB with five passes).
pub const ARGON2_MEMORY_KIB_MIN: u32 = 8192;
/// The most memory, in KiB: 1 GiB for each thread is beyond what any recommendation asks for, and a
/// typing error beyond it would take the machine down.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 1_048_576;
/// The most passes: with the default memory a login then takes most of a second.
pub const ARGON2_ITERATIONS_MAX: u32 = 64;
/// The most lanes; one thread computes them all, so that more have no use.
pub const ARGON2_PARALLELISM_MAX: u32 = 16;

/// The cost of one password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashParams {
    /// Memory in KiB; at least eight for each lane.
    pub memory_kib: u32,
    /// Passes over the memory; at least 1.
    pub iterations: u32,
    /// Lanes; at least 1.
    pub parallelism: u32,
}

impl HashParams {
    /// Those that a verifier was made with.
    pub fn of(verifier: &Verifier) -> HashParams {
        let Verifier { memory_kib, iterations, parallelism, .. } = *verifier;
        HashParams { memory_kib, iterations, parallelism }
    }
}

/// SHA-256 of a token, an invitation code or a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Sha256 {
        use sha2::Digest as _;
        Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// Lower-case hexadecimal.
    pub fn to_hex(self) -> String {
        use std::fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let written = write!(hex, "{byte:02x}");
            debug_assert!(written.is_ok(), "a String takes everything");
            hex
        })
    }
}

/// Work for the password hasher.
#[derive(Debug, Clone)]
pub enum HashOp {
    /// Makes a verifier for a new password.
    Create(Password),
    /// Compares a password with a verifier. `None` costs the same and never matches: it stands for an
    /// account that does not exist.
    Verify(Password, Option<Verifier>),
}

/// The hasher's answer.
#[derive(Debug, Clone)]
pub enum HashDone {
    /// To [`HashOp::Create`].
    Created(Verifier),
    /// To [`HashOp::Verify`].
    Verified {
        /// Whether the password is the right one.
        matches: bool,
        /// A verifier with today's parameters, where the password matches and the old one has others.
        upgraded: Option<Verifier>,
    },
    /// Out of memory or randomness; the command is answered `internal`.
    Failed,
}

/// How a login proved whose it is; checked again inside the write that opens the session.
#[derive(Debug, Clone)]
pub enum Proof {
    /// The password matched the verifier of this [`Credentials::epoch`].
    Password {
        /// See [`Credentials::epoch`]: a password changed meanwhile refuses the login.
        epoch: i64,
        /// Replaces the verifier.
        upgraded: Option<Verifier>,
    },
    /// A token with this hash.
    Token(Sha256),
    /// The client certificate of the connection.
    Certificate(Sha256),
}

/// What a login by password needs to know.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The account.
    pub account: AccountId,
    /// What to compare the password with.
    pub verifier: Verifier,
    /// Rises with each change of the password.
    pub epoch: i64,
}
