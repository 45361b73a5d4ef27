//! What several service ports claim.

use fairlead_datapath::service::FrontendKey;

use super::{FrontendKind, PortKey};

/// An address and port that more than one service port claims. By kind, then by age, then by name one has it, whichever
/// came first, so that every node decides the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contested {
    /// What is claimed.
    pub key: FrontendKey,
    /// Who has it.
    pub owner: Claimant,
    /// Who does not, the next in line first.
    pub others: Vec<Claimant>,
}

/// Who claims an address and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The service port.
    pub port: PortKey,
    /// As what it claims it.
    pub kind: FrontendKind,
}
