//! What should be on the node, what is, and what has to be done about the difference. Pure: who looks and who acts is
//! elsewhere ([`crate::bpf`] for programs, [`crate::wiring`] for links), and so is who decides when (`daemon`).
//!
//! Others change what Fairlead made: systemd-networkd, NetworkManager and netplan set links down and up, which takes their
//! routes and neighbours; cleanup scripts remove pins, filters and whole file systems. So nothing is made once and trusted
//! from then on.

mod hooks;
mod pods;
#[cfg(test)]
mod tests;

pub use hooks::{FilterPlace, Filters, HaveHook, HookStep, WantHook, compare_hooks};
pub use pods::{HaveLink, HavePods, Setting, Step, WantPod, compare_pods, follows_the_pod, is_wired_but_for_the_mac};

/// Repairs of one kind that are named when there are many.
const NAMED: usize = 4;

/// What a repair was about: the label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The bpf file system, or Fairlead's directory on it.
    Bpffs,
    /// The pin of a table or of a link.
    Pin,
    /// A program at an interface or a cgroup.
    Program,
    /// The device of the tunnel.
    Tunnel,
    /// The device for what the node itself sends to services.
    Services,
    /// The host side of a pod's veth: up, with its MAC address.
    Link,
    /// A setting of the kernel.
    Sysctl,
    /// A neighbour entry.
    Neighbour,
    /// A route.
    Route,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Bpffs,
        Self::Pin,
        Self::Program,
        Self::Tunnel,
        Self::Services,
        Self::Link,
        Self::Sysctl,
        Self::Neighbour,
        Self::Route,
    ];

    /// The label of the metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bpffs => "bpffs",
            Self::Pin => "pin",
            Self::Program => "program",
            Self::Tunnel => "tunnel",
            Self::Services => "services",
            Self::Link => "link",
            Self::Sysctl => "sysctl",
            Self::Neighbour => "neighbour",
            Self::Route => "route",
        }
    }
}

/// Something that was not as it should be, and is again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What it was about.
    pub kind: Kind,
    /// What was done.
    pub what: String,
}

/// Something that is not as it should be, and can't be put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The slot of the pod that it is about; nothing if it is about the node.
    pub slot: Option<u16>,
    /// What is wrong and what to do.
    pub what: String,
}

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// What is right again.
    pub repaired: Vec<Repair>,
    /// What is not.
    pub broken: Vec<Broken>,
}

impl Looked {
    /// Nothing could be looked at.
    #[must_use]
    pub fn unseen(what: String) -> Self {
        let mut looked = Self::default();
        looked.lacks(what);
        looked
    }

    /// Notes something of the node that is not as it should be.
    pub fn lacks(&mut self, what: String) {
        self.broken.push(Broken { slot: None, what });
    }

    /// The repairs for a person: one a kind, which names the first of many.
    #[must_use]
    pub fn summary(&self) -> Vec<Repair> {
        let of = |kind: Kind| {
            let all: Vec<_> =
                self.repaired.iter().filter(|repair| repair.kind == kind).map(|repair| &*repair.what).collect();
            let more = all.len().saturating_sub(NAMED);
            let named = all.get(..all.len() - more).unwrap_or_default().join("; ");
            let what = if more == 0 { named } else { format!("{named}; and {more} more") };
            (!all.is_empty()).then_some(Repair { kind, what })
        };
        Kind::ALL.into_iter().filter_map(of).collect()
    }

    /// Notes an attempt to put something right.
    pub fn note(&mut self, kind: Kind, slot: Option<u16>, what: String, outcome: Result<(), impl ToString>) {
        match outcome {
            Ok(()) => self.repaired.push(Repair { kind, what }),
            Err(error) => self.broken.push(Broken { slot, what: format!("{what}: {}", error.to_string()) }),
        }
    }
}
