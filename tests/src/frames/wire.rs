//! An interface that frames made by hand are sent from.

use std::time::Duration;

use serde_json::Value;

use super::{VLAN, ethernet};
use crate::node::Node;
use crate::packets::Packets;
use crate::pod::Pod;
use crate::vantage::Probes;

/// An interface, and who frames are sent to from it.
#[derive(Debug)]
pub struct Wire {
    /// Its packet socket.
    pub packets: Packets,
    /// Its own address.
    pub own: [u8; 6],
    /// The address that frames go to.
    pub gateway: [u8; 6],
}

impl Wire {
    /// A pod's interface, with its gateway at the other end.
    ///
    /// # Panics
    /// When the pod has no neighbour entry for its gateway.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let gateway = mac(pod, &["ip", "-j", "neigh", "show", "169.254.1.1", "dev", "eth0"], "lladdr");
        Self::towards(pod, gateway)
    }

    /// The interface of a host on the nodes' network, with a node's uplink at the other end.
    #[must_use]
    pub fn to_uplink(host: &impl Probes, node: &Node) -> Self {
        Self::towards(host, mac(node, LINK, "address"))
    }

    fn towards(place: &impl Probes, gateway: [u8; 6]) -> Self {
        Self { packets: place.packets("eth0"), own: mac(place, LINK, "address"), gateway }
    }

    /// Sends something to the gateway.
    ///
    /// # Panics
    /// When the interface does not take it.
    #[track_caller]
    pub fn send(&mut self, kind: u16, payload: &[u8]) {
        let frame = ethernet(self.gateway, self.own, kind, payload);
        self.packets.send(&frame);
    }

    /// Sends something to the gateway in a frame with an 802.1Q tag: priority and VLAN.
    ///
    /// # Panics
    /// When the interface does not take it.
    #[track_caller]
    pub fn send_tagged(&mut self, (priority, vlan): (u16, u16), kind: u16, payload: &[u8]) {
        let tag = [priority << 13 | vlan, kind].map(u16::to_be_bytes).concat();
        self.send(VLAN, &[&tag[..], payload].concat());
    }

    /// The first frame that comes in and is wanted.
    #[track_caller]
    pub fn comes(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let within = Duration::from_secs(5);
        let wanted = |frame: &crate::Frame| !frame.outgoing && wanted(&frame.bytes());
        self.packets.wait_for(within, wanted).map(|frame| frame.bytes())
    }
}

/// The command that shows a place's interface.
const LINK: &[&str] = &["ip", "-j", "link", "show", "dev", "eth0"];

/// A hardware address out of what `ip` says.
fn mac(place: &impl Probes, argv: &[&str], field: &str) -> [u8; 6] {
    let said = place.must_run(argv);
    let address = serde_json::from_str::<Value>(&said).ok().and_then(|answer| {
        let digits = answer[0][field].as_str()?.split(':').map(|byte| u8::from_str_radix(byte, 16).ok());
        <[u8; 6]>::try_from(digits.collect::<Option<Vec<u8>>>()?).ok()
    });
    address.unwrap_or_else(|| panic!("{argv:?} names no hardware address: {said}"))
}
