//! The walks, by the behaviour rows that need no kernel. Packets go through a [`Node`] and every checksum of what comes
//! out is checked, computed in full and left to the hardware.

mod bandwidth;
mod blind;
mod broadcast;
mod bytes;
mod cost;
mod crowd;
mod dns;
mod errors;
mod foreign;
mod hits;
mod lifecycle;
mod link_local;
mod masquerade;
mod opening;
mod outside;
mod overlay;
mod paths;
mod policies;
mod ports;
mod sequences;
mod services;
mod tell;
mod to_services;
mod xdp_uplink;

use std::net::IpAddr;
use std::vec::Vec;

use crate::config::Config;
use crate::drop::DropReason;
use crate::packet::{TCP, TcpFlags, UDP};
use crate::testing::{Frame, L4, Landed, Message, Node, Seen};

/// A client's port.
const CLIENT: u16 = 40_000;

/// Runs a test for both families, with checksums that are complete and with those that are not yet.
fn each(test: impl Fn(bool, Send)) {
    for v6 in [false, true] {
        for partial in [false, true] {
            test(v6, Send { partial });
        }
    }
}

/// How packets leave their senders.
#[derive(Clone, Copy)]
struct Send {
    partial: bool,
}

impl Send {
    fn frame(self, message: &Message) -> Frame {
        if self.partial { message.frame().with_partial_checksum() } else { message.frame() }
    }

    /// Has a pod send a message: where it ends, and as what.
    fn pod(self, node: &mut Node, slot: u16, message: &Message) -> (Landed, Seen) {
        let mut frame = self.frame(message);
        let landed = node.pod_sends(slot, &mut frame);
        if let Landed::Refused(_) = landed {
            frame.complete();
        }
        (landed, seen(&frame))
    }

    /// Has a message come in by the uplink.
    fn arrives(self, node: &mut Node, message: &Message) -> (Landed, Seen) {
        let mut frame = self.frame(message);
        let landed = node.arrives(&mut frame);
        (landed, seen(&frame))
    }

    /// Has the node itself send a message to the address of a service, where its routes lead.
    fn asks(self, node: &mut Node, message: &Message) -> (Landed, Seen) {
        let mut frame = self.frame(message);
        let landed = node.asks(&mut frame);
        if let Landed::Refused(_) = landed {
            frame.complete();
        }
        (landed, seen(&frame))
    }

    /// Has the node itself send a message.
    fn node(self, node: &mut Node, message: &Message) -> (Landed, Seen) {
        let mut frame = self.frame(message);
        let landed = node.sends(&mut frame);
        (landed, seen(&frame))
    }
}

/// Reads a packet whose checksums have to be right.
#[track_caller]
fn seen(frame: &Frame) -> Seen {
    match Seen::of(frame) {
        Ok(seen) => seen,
        Err(error) => panic!("{error}: {:02x?}", frame.bytes),
    }
}

/// What the receiver of a packet answers, with other flags where it is TCP.
fn answer(to: &Seen, flags: u8) -> Message {
    let l4 = match to.proto {
        TCP => L4::Tcp(to.dport, to.sport, flags),
        UDP => L4::Udp(to.dport, to.sport),
        _ => L4::Answer(to.sport),
    };
    Message::new(to.dst, to.src, l4)
}

fn udp(from: (IpAddr, u16), to: (IpAddr, u16)) -> Message {
    Message::new(from.0, to.0, L4::Udp(from.1, to.1))
}

fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Message {
    Message::new(from.0, to.0, L4::Tcp(from.1, to.1, flags))
}

const SYN: u8 = TcpFlags::SYN;
const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN | TcpFlags::ACK;
const RST: u8 = TcpFlags::RST;

/// Has a flow answered: the packet that came out is answered by the pod that got it, and the answer must be the reverse
/// of what the opener sent.
#[track_caller]
fn answered(send: Send, node: &mut Node, opener: u16, sent: &Message, got: &(Landed, Seen), flags: u8) {
    let Landed::Pod(slot) = got.0 else { panic!("{:?}", got.0) };
    let (landed, back) = send.pod(node, slot, &answer(&got.1, flags));
    assert_eq!(landed, Landed::Pod(opener));
    let (from, to) = seen(&sent.frame()).ends();
    assert_eq!(back.ends(), (to, from));
}

/// The reason of a drop.
fn dropped(reason: DropReason) -> Landed {
    Landed::Dropped(reason)
}
