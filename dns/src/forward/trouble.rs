//! Why a server gave no answer.

use std::io;
use std::sync::Arc;

/// Why a server gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(Arc<str>);

impl Trouble {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        // However it came to be known, it is one thing to search for.
        let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
        Self(if is_refused { error.kind().to_string().into() } else { error.to_string().into() })
    }
}
