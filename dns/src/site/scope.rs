//! Which names something is for.

use crate::WireName;
pub use crate::name::covers;

/// Which names go on to whoever is next when there is nothing here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Fall {
    /// None.
    #[default]
    Nowhere,
    /// All.
    Everywhere,
    /// Those in these zones.
    In(Vec<WireName>),
}

impl Fall {
    /// Whether a name goes on.
    #[must_use]
    pub fn through(&self, name: &[u8]) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Everywhere => true,
            Self::In(zones) => covers(zones, name),
        }
    }
}
