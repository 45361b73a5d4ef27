//! What a change of policies would open and close.

use serde::{Deserialize, Serialize};

/// What a change of policies would open and close.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyWhatIf {
    /// The policies that are given, and what is new about them.
    pub policies: Vec<PolicyChangeView>,
    /// What would be opened.
    pub opens: Vec<DifferenceView>,
    /// What would be closed.
    pub closes: Vec<DifferenceView>,
    /// What the answer leaves out, and why.
    pub notes: Vec<String>,
    /// What is missing for an answer that can be relied on, and what to do: with these, `--exit-code` fails.
    #[serde(default)]
    pub incomplete: Vec<String>,
}

/// A policy that is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChangeView {
    /// Kind, namespace and name.
    pub policy: String,
    /// `new`, `changed`, `unchanged` or `deleted`.
    pub change: String,
}

/// Connections that change: the same traffic from each of some ends to each of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceView {
    /// Who opens them: pods as `namespace/name`, nodes as `node/name`, and networks without the networks inside that policies name.
    pub from: Vec<String>,
    /// Whom they are opened to.
    pub to: Vec<String>,
    /// Protocols and ports, such as `TCP 80`, with the family where it is of one alone; `everything` is every protocol.
    pub traffic: Vec<String>,
}
