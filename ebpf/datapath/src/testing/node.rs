//! A node: pods, services and another node.

use std::net::IpAddr;
use std::vec::Vec;

use super::host::Host;
use crate::config::{Config, Lifetimes, Uplink, UplinkFlags};
use crate::peer::{CidrKey, HopFlags, NO_NODE, NO_SLOT, NodeHop, Peer, PeerFlags, Pod, PodWord};
use crate::policy::{ALLOW_ALL, ANY_PORT, OTHER_PROTOCOLS, PeerKey, PolicySet, PortKey, Row};
use crate::service::{Backend, BackendState, Frontend, FrontendFlags, FrontendKey, Scope, service_port};
use crate::{Addr, WirePort};

/// A node with slots 0 to 7 taken by pods that no policy selects.
#[derive(Debug)]
pub struct Node {
    /// What its packets meet.
    pub host: Host,
}

/// An address.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// The one uplink.
    pub const UPLINK: u32 = 2;
    /// Pods.
    pub const PODS: u16 = 8;
    /// Largest IP packet.
    pub const MTU: u32 = 1500;
    /// UDP port of the tunnel.
    pub const TUNNEL_PORT: WirePort = WirePort::new(4789);

    /// A node whose pods no policy selects, and no services.
    #[must_use]
    pub fn new() -> Self {
        let mut host = Host::default();
        let (v4, v6) = (Self::address(false).into(), Self::address(true).into());
        host.config = Config {
            v4,
            v6,
            mtu: Self::MTU,
            mark: Config::MARK,
            snat_first: Config::SNAT_FIRST,
            snat_count: Config::SNAT_COUNT,
            max_flows: Config::MAX_FLOWS,
            max_rate: Config::MAX_RATE,
            max_open: Config::MAX_OPEN,
            seed: 0x5eed,
            pickup_until: 0,
            closed: Default::default(),
            tunnel_port: Self::TUNNEL_PORT,
            pad: [0; 6],
            lifetimes: Lifetimes::default(),
        };
        host.uplinks.insert(Self::UPLINK, Uplink { v4, v6, flags: UplinkFlags::PRIMARY, ..Uplink::default() });
        let mut node = Self { host };
        for v6 in [false, true] {
            node.peer(Self::address(v6), NO_SLOT, NO_NODE, PeerFlags::NODE | PeerFlags::SELF);
            node.peer(Self::other_node(v6), NO_SLOT, 0, PeerFlags::NODE);
            node.peer(Self::far_pod(v6), NO_SLOT, 0, PeerFlags::POD | PeerFlags::EXISTS);
            let (own, theirs, len) =
                if v6 { ("fd00:10:244:1::", "fd00:10:244:2::", 64) } else { ("10.244.1.0", "10.244.2.0", 24) };
            for (prefix, node_index) in [(own, NO_NODE), (theirs, 0)] {
                let value = Peer { flags: PeerFlags::POD, node: node_index, ..Peer::WORLD };
                node.host.peers.cidrs.insert(CidrKey::prefix(ip(prefix).into(), len), value);
            }
        }
        let hop = NodeHop {
            v4: Self::other_node(false).into(),
            v6: Self::other_node(true).into(),
            ifindex: Self::UPLINK,
            flags: 0,
        };
        node.host.peers.nodes.insert(0, hop);
        for slot in 0..Self::PODS {
            for v6 in [false, true] {
                node.peer(Self::pod(slot, v6), slot, NO_NODE, PeerFlags::POD | PeerFlags::EXISTS);
            }
            let pod = Pod {
                word: PodWord::new(ALLOW_ALL, ALLOW_ALL, 1).0,
                v4: Self::pod(slot, false).into(),
                v6: Self::pod(slot, true).into(),
                pod_mac: [2, 0, 0, 0, 1, slot as u8],
                host_mac: [2, 0, 0, 0, 2, slot as u8],
                ..Pod::NONE
            };
            node.host.peers.pods.insert(slot, pod);
        }
        node
    }

    /// Has both families go to the other node through the tunnel.
    pub fn tunnel(&mut self) {
        let hop = self.host.peers.nodes.get_mut(&0).expect("the other node");
        hop.flags = HopFlags::TUNNEL_V4 | HopFlags::TUNNEL_V6 | HopFlags::SENDS;
    }

    /// The node's address.
    #[must_use]
    pub fn address(v6: bool) -> IpAddr {
        ip(if v6 { "fd00:172:18::1" } else { "172.18.0.1" })
    }

    /// The other node's address.
    #[must_use]
    pub fn other_node(v6: bool) -> IpAddr {
        ip(if v6 { "fd00:172:18::2" } else { "172.18.0.2" })
    }

    /// The address of a slot's pod.
    #[must_use]
    pub fn pod(slot: u16, v6: bool) -> IpAddr {
        let mut bytes = Addr::from(ip(if v6 { "fd00:10:244:1::10" } else { "10.244.1.16" })).bytes();
        bytes[15] += slot as u8;
        Addr::from_bytes(bytes).into()
    }

    /// The address of a pod on the other node.
    #[must_use]
    pub fn far_pod(v6: bool) -> IpAddr {
        ip(if v6 { "fd00:10:244:2::7" } else { "10.244.2.7" })
    }

    /// An address of the world.
    #[must_use]
    pub fn world(v6: bool) -> IpAddr {
        ip(if v6 { "2001:db8::100" } else { "192.0.2.100" })
    }

    /// The address of a service.
    #[must_use]
    pub fn vip(v6: bool) -> IpAddr {
        ip(if v6 { "fd00:10:96::5" } else { "10.96.0.5" })
    }

    /// The address of another service.
    #[must_use]
    pub fn other_vip(v6: bool) -> IpAddr {
        ip(if v6 { "fd00:10:96::6" } else { "10.96.0.6" })
    }

    /// Has pods go to an address outside with their own.
    pub fn keep_source(&mut self, ip: IpAddr) {
        let len = if ip.is_ipv4() { 32 } else { 128 };
        let value = Peer { flags: PeerFlags::KEEP_SOURCE, ..Peer::WORLD };
        self.host.peers.cidrs.insert(CidrKey::prefix(ip.into(), len), value);
    }

    fn peer(&mut self, ip: IpAddr, slot: u16, node: u16, flags: u32) {
        let addr = Addr::from(ip);
        self.host.peers.peers.insert(addr, Peer { tag: 0, class: 0, slot, node, flags }.sealed(addr.tag()));
    }

    /// Adds a service port with these backends, or replaces it; returns the ids of its backends.
    pub fn service(&mut self, at: (IpAddr, u16), proto: u8, backends: &[(IpAddr, u16)]) -> Vec<u32> {
        let tables = &mut self.host.services;
        let first = tables.backends.len().max(1) as u32;
        let service = first + 1000;
        let ids: Vec<u32> = (first..).take(backends.len()).collect();
        for (id, (ip, port)) in ids.iter().zip(backends) {
            let state = BackendState::new(id + 7, true).0;
            let backend = Backend { addr: (*ip).into(), port: WirePort::new(*port), proto, pad: 0, service, state };
            tables.write_backend(*id, backend);
        }
        let offset = tables.slots.len() as u32;
        tables.write_slots(offset, &ids);
        let scope = Scope::forward(offset, ids.len() as u32);
        self.frontend(at, proto, service, scope);
        ids
    }

    /// Sets what a service port answers to everybody.
    pub fn frontend(&mut self, (ip, port): (IpAddr, u16), proto: u8, service: u32, scope: Scope) {
        let key = FrontendKey::new(ip.into(), WirePort::new(port), proto);
        let tables = &mut self.host.services;
        let value = Frontend { tag: 0, service, internal: scope, external: scope, affinity_seconds: 0, flags: 0 }
            .sealed(key.tag());
        if let Some((index, bit)) = service_port(key.port, proto) {
            *tables.service_ports.entry(index).or_default() |= bit;
        }
        if tables.frontends.insert(key, value).is_none() {
            tables.state.udp_generation += 1;
        }
    }

    /// Sets bits of [`crate::service::FrontendFlags`] of a service port.
    ///
    /// # Panics
    /// When there is no such port.
    pub fn flag(&mut self, (ip, port): (IpAddr, u16), proto: u8, flags: u32) {
        let key = FrontendKey::new(ip.into(), WirePort::new(port), proto);
        let frontend = self.host.services.frontends.get_mut(&key).expect("a frontend");
        *frontend = Frontend { flags: frontend.flags | flags, ..*frontend }.sealed(key.tag());
    }

    /// Makes the node's addresses those of NodePorts and hostPorts.
    pub fn node_ports(&mut self) {
        for v6 in [false, true] {
            self.host.services.node_addresses.insert(Self::address(v6).into(), FrontendFlags::WILDCARDS);
        }
    }

    /// Takes a backend out of its service.
    pub fn stop_serving(&mut self, id: u32) {
        self.host.services.write_backend_state(id, BackendState::new(id + 7, false).0);
    }

    /// Says of a backend that it is about to end.
    pub fn end(&mut self, id: u32) {
        self.host.services.write_backend_state(id, BackendState::new(id + 7, true).with_ending(true).0);
    }

    /// Has a backend serve again.
    pub fn serve(&mut self, id: u32) {
        self.host.services.write_backend_state(id, BackendState::new(id + 7, true).0);
    }

    /// Sets the policy sets of a pod; the epoch moves.
    pub fn police(&mut self, slot: u16, ingress: u32, egress: u32) {
        let pod = self.host.peers.pods.get_mut(&slot).expect("a pod");
        pod.word = PodWord::new(ingress, egress, PodWord(pod.word).epoch() + 1).0;
    }

    /// Writes a policy set with one rule, for every peer: a protocol and port, or everything.
    pub fn policy_set(&mut self, id: u32, allows: Option<(u8, u16)>) {
        let tables = &mut self.host.policies;
        tables.sets.insert(PolicySet::index(id), PolicySet { id, pages: 1, ..PolicySet::default() });
        let row = |tag, allowed: bool| Row::new([u64::from(allowed), 0, 0, 0]).sealed(tag);
        let key = PeerKey { set: id, class: 0, page: 0 };
        tables.peers.insert(key, row(key.tag(), true));
        for proto in [OTHER_PROTOCOLS, 6, 17, 132] {
            let key = PortKey { set: id, port: ANY_PORT, proto, page: 0 };
            tables.ports.insert(key, row(key.tag(), allows.is_none()));
        }
        if let Some((proto, port)) = allows {
            let key = PortKey { set: id, port: WirePort::new(port), proto, page: 0 };
            tables.ports.insert(key, row(key.tag(), true));
        }
    }
}
