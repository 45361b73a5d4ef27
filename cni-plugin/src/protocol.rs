//! What plugin and agent say to each other.
//!
//! The plugin connects to the agent's Unix stream socket and sends one JSON object a line; each is answered by one JSON
//! object on a line before the next is read. One connection serves one verb. ADD is `reserve`, then `attach` on the
//! same connection: when a connection ends after `reserve` and before `attach` was answered with `done`, the plugin has
//! died and the agent takes the reservation back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::Mac;

/// Where the agent listens when nothing else is configured.
pub const DEFAULT_SOCKET: &str = "/run/fairlead/cni.sock";

/// The interface index of the host side of the pod in slot 0. The pod in slot `n` has this plus `n`.
pub const FIRST_POD_IFINDEX: u32 = 1_000_000;

/// How many pods a node can have, which is also the length of every per-pod map.
pub const SLOTS: u16 = 4096;

/// What every host side's name begins with.
pub const HOST_LINK_PREFIX: &str = "fl";

/// Whether this is the name of some pod's host side.
#[must_use]
pub fn is_host_link(name: &str) -> bool {
    name.strip_prefix(HOST_LINK_PREFIX)
        .is_some_and(|hex| hex.len() == 10 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

/// The protocol number (`rtm_protocol`) of routes to pods, by which they can be told from other routes.
pub const POD_ROUTE_PROTOCOL: u8 = 241;

/// The name of the network of our own configuration, and of what an earlier release made.
pub const DEFAULT_NETWORK: &str = "fairlead";

fn default_network() -> String {
    DEFAULT_NETWORK.to_owned()
}

/// The default gateway that pods see for IPv4. No device has it: the datapath answers for it.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The default gateway that pods see for IPv6. No device has it: the datapath answers for it.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// One interface of one container, which is what CNI calls an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// `CNI_CONTAINERID`
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// `CNI_IFNAME`
    pub ifname: String,
}

impl Attachment {
    /// The name of the host side of its veth pair. Both sides compute it, so that a DEL needs no state.
    #[must_use]
    pub fn host_link(&self) -> String {
        host_link_of(self.host_mac())
    }

    /// The address of the pod's side: locally administered, the same for the same attachment.
    #[must_use]
    pub fn pod_mac(&self) -> Mac {
        self.mac(0x02)
    }

    /// The address of the host's side, which pods see as their gateway's.
    #[must_use]
    pub fn host_mac(&self) -> Mac {
        self.mac(0x0a)
    }

    fn mac(&self, first: u8) -> Mac {
        let [.., a, b, c, d, e] = self.hash().to_be_bytes();
        Mac([first, a, b, c, d, e])
    }

    /// FNV-1a (RFC 9923), folded so that the low 40 bits depend on all of it.
    fn hash(&self) -> u64 {
        let bytes = self.container_id.bytes().chain([b'/']).chain(self.ifname.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash ^ (hash >> 40)
    }
}

/// The pod that an attachment belongs to, from `CNI_ARGS`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// `K8S_POD_NAMESPACE`
    pub namespace: String,
    /// `K8S_POD_NAME`
    pub name: String,
    /// `K8S_POD_UID`, where the runtime gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// What the alias of a host side begins with; the name of its network follows. What no journal knows any more is told apart
/// by it.
const ALIAS: &str = "network=";

/// The longest alias (`IFALIASZ` in include/uapi/linux/if.h, with its zero).
const LONGEST_ALIAS: usize = 255;

/// The alias of the host side of a pod of this network.
#[must_use]
pub fn network_alias(network: &str) -> String {
    let mut alias = format!("{ALIAS}{network}");
    alias.truncate(alias.floor_char_boundary(LONGEST_ALIAS));
    alias
}

/// The name of the host side that has this MAC address from its ADD: both are made of the same bits.
#[must_use]
pub fn host_link_of(Mac([_, bits @ ..]): Mac) -> String {
    let hex: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{HOST_LINK_PREFIX}{hex}")
}

/// Whether an alias is one that ADD gives to host sides, whatever their network.
#[must_use]
pub fn is_network_alias(alias: &str) -> bool {
    alias.starts_with(ALIAS)
}

/// Whether a host side with this alias is of this network. One without, of an earlier release, is of our own.
#[must_use]
pub fn is_of_network(alias: Option<&str>, network: &str) -> bool {
    match alias.filter(|alias| alias.starts_with(ALIAS)) {
        Some(alias) => alias == network_alias(network),
        None => network == DEFAULT_NETWORK,
    }
}

/// What a runtime asks for by the capabilities `ips` and `mac`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Addresses, at most one of a family.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// The address of the pod's side.
    #[serde(default)]
    pub mac: Option<Mac>,
}

/// A request of the plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// ADD, first step: give me a slot and addresses. Answered with [`Reply::Reserved`].
    Reserve {
        /// Whose interface it is.
        attachment: Attachment,
        /// The pod.
        pod: PodRef,
        /// `CNI_NETNS`
        netns: String,
        /// The inode of that namespace, which tells it from another one at the same path later.
        netns_inode: u64,
        /// The name of its network, to which a GC keeps.
        #[serde(default = "default_network")]
        network: String,
        /// What it has to be given.
        #[serde(default)]
        wanted: Wanted,
    },
    /// ADD, second step: the links exist and are down. Answered with [`Reply::Done`] when the pod's policy is in force.
    Attach {
        /// Whose interface it is.
        attachment: Attachment,
    },
    /// DEL: forget it and remove its host link. Answered with [`Reply::Done`] when nothing passes to or from the pod any more,
    /// also when there is nothing to forget; the link goes after that.
    Release {
        /// Whose interface it is.
        attachment: Attachment,
    },
    /// CHECK: what was reserved for it? Answered with [`Reply::Reserved`].
    Check {
        /// Whose interface it is.
        attachment: Attachment,
    },
    /// STATUS: can an ADD succeed? Answered with [`Reply::Done`].
    Status,
    /// GC: release everything of a network that is not listed. Answered with [`Reply::Done`].
    Gc {
        /// The network.
        #[serde(default = "default_network")]
        network: String,
        /// The attachments that are still in use.
        keep: Vec<Attachment>,
    },
}

/// An answer of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// What the plugin needs to wire the pod.
    Reserved(Reservation),
    /// It is so.
    Done,
    /// It can't be done.
    Failed(Failure),
}

/// What an attachment was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The pod's index in every per-pod map.
    pub slot: u16,
    /// The interface index that the host side must get at its creation.
    pub ifindex: u32,
    /// The name of the host side.
    pub host_link: String,
    /// The MAC address of the host side.
    pub host_mac: Mac,
    /// The MAC address of the pod side.
    pub pod_mac: Mac,
    /// The MTU of both sides, in bytes.
    pub mtu: u32,
    /// The pod's addresses, IPv4 first; at most one of a family.
    pub addresses: Vec<PodAddress>,
}

/// One address of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodAddress {
    /// The address, alone on its link: /32 or /128.
    pub ip: IpAddr,
    /// The gateway of the pod's default route in this family.
    pub gateway: IpAddr,
    /// The node's own address with which the node's stack should talk to the pod, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_source: Option<IpAddr>,
}

/// Why the agent can't, in the terms of a CNI error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A CNI error code, see [`crate::code`].
    pub code: u32,
    /// What is wrong, in a sentence.
    pub msg: String,
    /// What to do about it.
    #[serde(default)]
    pub details: String,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What must hold for whatever somebody writes to the agent's socket: it is no request, or one that is read again as what it
    /// was read as, and whose names are no longer than the kernel has them.
    fn check(line: &[u8]) {
        let Ok(request) = serde_json::from_slice::<Request>(line) else { return };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        match &request {
            Request::Reserve { attachment, network, .. } => {
                assert_eq!(attachment.host_link().len(), 12);
                assert!(network_alias(network).len() <= LONGEST_ALIAS);
                assert!(is_of_network(Some(&network_alias(network)), network));
            }
            Request::Attach { attachment } | Request::Release { attachment } | Request::Check { attachment } => {
                assert_eq!(attachment.host_link().len(), 12);
            }
            Request::Status | Request::Gc { .. } => {}
        }
    }

    /// Lines that are worth keeping, below the package.
    fn kept() -> Vec<Vec<u8>> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        let files = std::fs::read_dir(Path::new(&package).join("corpus/request")).unwrap();
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn kept_requests_are_as_they_should_be() {
        let kept = kept();
        assert!(kept.iter().filter(|line| serde_json::from_slice::<Request>(line).is_ok()).count() >= 5);
        kept.iter().for_each(|line| check(line));
    }

    proptest! {
        #[test]
        fn no_line_is_more_than_a_request_or_none(
            bytes in vec(any::<u8>(), 0..200),
            which in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            cut in 0_usize..20,
        ) {
            check(&bytes);
            // Half a request, one with bytes in between, one in which some are missing.
            let kept = kept();
            let line = &kept[which.index(kept.len())];
            let (head, tail) = line.split_at(at.index(line.len()));
            check(head);
            check(&[head, &bytes[..cut.min(bytes.len())], tail].concat());
            check(&[head, tail.get(cut..).unwrap_or_default()].concat());
        }
    }

    #[test]
    fn host_link_names_are_short_and_differ() {
        let mut seen = HashSet::new();
        for container in 0..2000 {
            for ifname in ["eth0", "eth1"] {
                let attachment = Attachment { container_id: format!("{container:064x}"), ifname: ifname.to_owned() };
                let name = attachment.host_link();
                assert_eq!(name.len(), 12, "IFNAMSIZ is 16 with its zero");
                assert_eq!(name, format!("{HOST_LINK_PREFIX}{:010x}", attachment.hash() & 0xff_ffff_ffff));
                assert!(seen.insert(name));
            }
        }
    }

    #[test]
    fn macs_are_local_unicast_and_differ_between_sides() {
        let attachment = Attachment { container_id: "c".to_owned(), ifname: "eth0".to_owned() };
        for mac in [attachment.pod_mac(), attachment.host_mac()] {
            assert_eq!(mac.0[0] & 0b11, 0b10, "{mac}");
        }
        assert_ne!(attachment.pod_mac(), attachment.host_mac());
    }

    #[test]
    fn requests_have_a_stable_form() {
        let attachment = Attachment { container_id: "c".to_owned(), ifname: "eth0".to_owned() };
        let text = serde_json::to_string(&Request::Attach { attachment }).unwrap();
        assert_eq!(text, r#"{"op":"attach","attachment":{"containerID":"c","ifname":"eth0"}}"#);
        assert_eq!(serde_json::to_string(&Reply::Done).unwrap(), r#"{"reply":"done"}"#);
    }
}
