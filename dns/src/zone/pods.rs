//! Addresses of pods by namespace.

use std::collections::HashMap;
use std::net::IpAddr;

use fairlead_objects::{ObjectKey, Phase, Pod};

/// Which namespaces have a pod with which address.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pods: HashMap<ObjectKey, Vec<IpAddr>>,
    counts: HashMap<(String, IpAddr), usize>,
}

/// An address that a namespace has now, or has no longer.
pub(super) type Change = (String, IpAddr, bool);

impl Pods {
    /// Takes a pod in, and says what changes.
    pub(super) fn set(&mut self, pod: &Pod) -> Vec<Change> {
        let finished = matches!(pod.phase, Phase::Succeeded | Phase::Failed);
        self.replace(&pod.key, if finished { Vec::new() } else { pod.ips.clone() })
    }

    /// Forgets a pod, and says what changes.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> Vec<Change> {
        self.replace(key, Vec::new())
    }

    fn replace(&mut self, key: &ObjectKey, addresses: Vec<IpAddr>) -> Vec<Change> {
        let mut changes = Vec::new();
        let entry = |address: &IpAddr| (key.namespace.clone(), *address);
        for address in &addresses {
            let count = self.counts.entry(entry(address)).or_default();
            *count += 1;
            if *count == 1 {
                changes.push((key.namespace.clone(), *address, true));
            }
        }
        let before =
            if addresses.is_empty() { self.pods.remove(key) } else { self.pods.insert(key.clone(), addresses) };
        for address in before.unwrap_or_default() {
            if let Some(count) = self.counts.get_mut(&entry(&address)) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&entry(&address));
                    changes.push((key.namespace.clone(), address, false));
                }
            }
        }
        changes
    }
}
