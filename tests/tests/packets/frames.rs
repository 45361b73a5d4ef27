//! Frames made by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use fairlead_tests::{Frame, Packets, Pod, Probes, checksum};
use serde_json::Value;

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// A pod's interface.
pub(crate) struct Wire {
    pub(crate) packets: Packets,
    pub(crate) own: [u8; 6],
    pub(crate) gateway: [u8; 6],
}

impl Wire {
    pub(crate) fn of(pod: &Pod) -> Self {
        let mac = |argv: &[&str], field: &str| {
            let answer: Value = serde_json::from_str(&pod.must_run(argv)).unwrap();
            let text = answer[0][field].as_str().unwrap().to_owned();
            let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            <[u8; 6]>::try_from(bytes).unwrap()
        };
        Self {
            packets: pod.packets("eth0"),
            own: mac(&["ip", "-j", "link", "show", "dev", "eth0"], "address"),
            gateway: mac(&["ip", "-j", "neigh", "show", "169.254.1.1", "dev", "eth0"], "lladdr"),
        }
    }

    /// Sends something to the gateway.
    pub(crate) fn send(&mut self, kind: u16, payload: &[u8]) {
        let frame = ethernet(self.gateway, self.own, kind, payload);
        self.packets.send(&frame);
    }

    /// The first frame that comes in and is wanted.
    pub(crate) fn comes(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let within = Duration::from_millis(300);
        self.packets.wait_for(within, |frame| incoming(frame) && wanted(&frame.bytes())).map(|frame| frame.bytes())
    }
}

fn incoming(frame: &Frame) -> bool {
    !frame.outgoing
}

pub(crate) fn ethernet(dst: [u8; 6], src: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &kind.to_be_bytes(), payload].concat()
}

/// An IPv4 packet.
pub(crate) fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, protocol, 0, 0];
    header.extend(src.octets());
    header.extend(dst.octets());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header.extend(payload);
    header
}

/// An IPv6 packet.
pub(crate) fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next, hops];
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(payload);
    packet
}

/// A datagram in its packet, with the EtherType of that.
pub(crate) fn datagram(src: IpAddr, dst: IpAddr, ports: (u16, u16), payload: &[u8]) -> (u16, Vec<u8>) {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut udp = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    udp.extend(payload);
    let sum = with_pseudo(src, dst, UDP, &udp);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => (IPV4, ipv4(src, dst, UDP, &udp)),
        (IpAddr::V6(src), IpAddr::V6(dst)) => (IPV6, ipv6(src, dst, UDP, 64, &udp)),
        _ => panic!("{src} and {dst} are of two families"),
    }
}

/// An ICMPv6 message in its packet; its checksum field is filled in.
pub(crate) fn icmpv6(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = with_pseudo(src.into(), dst.into(), ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv6(src, dst, ICMPV6, 255, &message)
}

/// The checksum over a message and its pseudo-header: 0 for one that has a right one.
pub(crate) fn with_pseudo(src: IpAddr, dst: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    let tail = [0, protocol, length[0], length[1]];
    checksum(&[&octets(src)[..], &octets(dst), &tail, message].concat())
}

/// The addresses of a frame's IP packet.
pub(crate) fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| <[u8; 4]>::try_from(frame.get(at..at + 4)?).ok().map(IpAddr::from);
    let v6 = |at: usize| <[u8; 16]>::try_from(frame.get(at..at + 16)?).ok().map(IpAddr::from);
    match u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?) {
        IPV4 => Some((v4(26)?, v4(30)?)),
        IPV6 => Some((v6(22)?, v6(38)?)),
        _ => None,
    }
}
