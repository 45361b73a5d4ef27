//! What is said on the socket: the same structures are JSON for programs and tables for a person.

mod audit;
mod rules;
mod service;
mod status;
mod what_if;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use audit::{AuditedFlowView, AuditedPolicyView, PolicyAudit};
pub use rules::PolicyRuleView;
pub use service::{EndpointView, ServiceExplanation, ServiceView, Verdict};
pub use status::{
    DnsView, MapView, MigrationView, NetworkView, ObjectCount, ObjectTrouble, PlansView, PodView, ProgramView,
    RangeView, RepairView, StatusView, VersionView, WarningView, WatchView, WayView, XdpView,
};
pub use what_if::{DifferenceView, PolicyChangeView, PolicyWhatIf};

/// The version of what is said on the socket: it grows when a field goes or changes its meaning, and when a question does.
pub const API: u32 = 2;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How is the agent? Answered with [`StatusView`].
    Status,
    /// Which agent is it? Answered with [`VersionView`].
    Version,
    /// Which services are there? Answered with a list of [`ServiceView`].
    ServiceList,
    /// What happens to connections to an address? Answered with a list of [`ServiceExplanation`], one a protocol.
    ServiceExplain {
        /// The address and port that clients use.
        address: SocketAddr,
    },
    /// May a flow pass, and why? Answered with [`PolicyExplanation`].
    PolicyExplain {
        /// `namespace/pod`, `node/name` or an address.
        from: String,
        /// `namespace/pod`, `namespace/service`, `node/name` or an address.
        to: String,
        /// The destination's port.
        port: PortRef,
        /// The IP protocol number.
        protocol: u8,
    },
    /// What have the rules of policies decided on? Answered with a list of [`PolicyRuleView`], by policy,
    /// direction and place.
    PolicyList {
        /// Of the policies that judge this pod alone, `namespace/name`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<String>,
    },
    /// What would policies in audit mode have dropped? Answered with [`PolicyAudit`].
    PolicyAudit {
        /// Of this pod alone, `namespace/name`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<String>,
    },
    /// What would policies open and close? Answered with [`PolicyWhatIf`].
    PolicyWhatIf {
        /// Texts of manifests with the policies.
        manifests: Vec<String>,
        /// Whether they are to be deleted, not applied.
        delete: bool,
        /// The namespace of those that name none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
    },
    /// What was dropped? Answered with [`crate::state::DropsView`].
    Drops {
        /// Whether to go on with a list of one [`crate::state::DropView`] for each drop that is seen from now on.
        follow: bool,
    },
    /// What is logged? Answered with a filter.
    LogLevel {
        /// What is to be logged from now on.
        filter: Option<String>,
    },
}

/// A port by number, or by the name that the destination gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// A number; 0 for a protocol without.
    Number(u16),
    /// A name.
    Name(String),
}

/// What becomes of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyVerdict {
    /// It may pass.
    Allowed,
    /// It is dropped.
    Dropped,
    /// The sender is told that nobody answers there.
    Refused,
    /// It depends on the endpoint, or on the family.
    Partly,
}

/// Why a flow may pass, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyExplanation {
    /// What becomes of it.
    pub verdict: PolicyVerdict,
    /// Whether it passes, whichever endpoint and family it takes.
    pub allow: bool,
    /// Why it is dropped, in the words of `fairlead drops`.
    pub reasons: Vec<String>,
    /// How it comes about, in order.
    pub lines: Vec<String>,
    /// Rules that would have allowed it but for their peers or but for their ports.
    pub near_misses: Vec<String>,
    /// Whether the tables of this node say the same; nothing where it judges neither end.
    pub in_force: Option<bool>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// What was asked for.
    Ok(Value),
    /// Why there is no answer, and what to do.
    Error(String),
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What must hold for whatever somebody writes to the socket: it is no question, or one that is read again as what it was read
    /// as.
    fn check(line: &[u8]) {
        let Ok(request) = serde_json::from_slice::<Request>(line) else { return };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }

    /// Lines that are worth keeping, below the package.
    fn kept() -> Vec<Vec<u8>> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        let files = std::fs::read_dir(Path::new(&package).join("corpus/question")).unwrap();
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn kept_questions_are_as_they_should_be() {
        let kept = kept();
        assert!(kept.iter().filter(|line| serde_json::from_slice::<Request>(line).is_ok()).count() >= 7);
        kept.iter().for_each(|line| check(line));
    }

    proptest! {
        #[test]
        fn no_line_is_more_than_a_question_or_none(
            bytes in vec(any::<u8>(), 0..200),
            which in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            cut in 0_usize..20,
        ) {
            check(&bytes);
            // Half a question, one with bytes in between, one in which some are missing.
            let kept = kept();
            let line = &kept[which.index(kept.len())];
            let (head, tail) = line.split_at(at.index(line.len()));
            check(head);
            check(&[head, &bytes[..cut.min(bytes.len())], tail].concat());
            check(&[head, tail.get(cut..).unwrap_or_default()].concat());
        }
    }
}
