//! Why a scenario cannot run, and the check of one value against its limits.

/// Why a scenario cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not TOML, or a key is unknown or has a value of the wrong kind.
    #[error("{0}")]
    Parse(String),
    /// A value outside its limits.
    #[error("{key}: {reason}")]
    Invalid {
        /// The key, as in `fault[2].crash`.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Fails with the key and the reason, unless the value is within its limits.
pub(crate) fn check(key: &str, ok: bool, reason: &str) -> Result<(), Error> {
    if ok { Ok(()) } else { Err(Error::Invalid { key: key.to_owned(), reason: reason.to_owned() }) }
}
