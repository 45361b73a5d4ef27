//! Pods of this node that went, as long as flows of theirs may be in the tables.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::cni::AttachedPod;

/// Slots and addresses that were pods' and whose flows are not swept yet.
#[derive(Debug, Default)]
pub(super) struct Gone {
    slots: BTreeSet<u16>,
    ips: BTreeSet<IpAddr>,
}

impl Gone {
    /// A pod went.
    pub(super) fn note(&mut self, pod: &AttachedPod) {
        self.slots.insert(pod.slot);
        self.ips.extend(&pod.ips);
    }

    /// Whether flows of a pod that had the slot or an address of this one may be left.
    pub(super) fn concerns(&self, pod: &AttachedPod) -> bool {
        self.slots.contains(&pod.slot) || pod.ips.iter().any(|ip| self.ips.contains(ip))
    }

    /// The flows of all of them are swept.
    pub(super) fn swept(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use fairlead_cni::Mac;
    use fairlead_objects::ObjectKey;

    use super::*;

    fn pod(slot: u16, ips: &[&str]) -> AttachedPod {
        AttachedPod {
            slot,
            ifindex: 1_000_000 + u32::from(slot),
            host_link: format!("fl{slot}"),
            key: ObjectKey::new("shop", "web"),
            uid: None,
            container_id: slot.to_string(),
            ifname: "eth0".to_owned(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            host_mac: Mac([2; 6]),
            pod_mac: Mac([4; 6]),
            netns: "/n".to_owned(),
            netns_inode: 1,
        }
    }

    #[test]
    fn c49_a_pod_with_the_slot_or_an_address_of_one_that_went_begins_without_its_flows() {
        let mut gone = Gone::default();
        assert!(!gone.concerns(&pod(1, &["10.0.0.1"])));
        gone.note(&pod(1, &["10.0.0.1", "fd00::1"]));
        for (again, concerned) in [
            (pod(1, &["10.0.0.2"]), true),
            (pod(2, &["10.0.0.1"]), true),
            (pod(2, &["10.0.0.2", "fd00::1"]), true),
            (pod(2, &["10.0.0.2", "fd00::2"]), false),
        ] {
            assert_eq!(gone.concerns(&again), concerned, "{again:?}");
        }
        gone.swept();
        assert!(!gone.concerns(&pod(1, &["10.0.0.1"])));
    }
}
