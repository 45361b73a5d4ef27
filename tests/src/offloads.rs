//! What a network device does for the kernel, switched on and off: ethtool's generic netlink family
//! (include/uapi/linux/ethtool_netlink.h), of the network namespace that this runs in.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME` and `CTRL_ATTR_FAMILY_ID`.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;
const FAMILY_ID: u16 = 1;

/// `ETHTOOL_MSG_FEATURES_SET`.
const SET_FEATURES: u8 = 12;

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// Bytes of `struct nlmsghdr`, and of that and `struct genlmsghdr`.
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;

/// Switches features of an interface on or off, by their names in the kernel (`netdev_features_strings` in
/// net/ethtool/common.c): "rx-gro=on".
///
/// # Errors
/// There is no such interface or feature, or it can't be switched.
pub fn set(interface: &str, features: &[String]) -> Result<()> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    let answer = ask(&socket, CONTROL, GET_FAMILY, &attribute(FAMILY_NAME, b"ethtool\0"))?;
    let family = find(&answer, FAMILY_ID).context("the kernel has no ethtool by netlink")?;
    let family = u16::from_ne_bytes([family[0], family[1]]);
    let mut bits = Vec::new();
    for feature in features {
        let (name, state) = feature.split_once('=').context("a feature is NAME=on or NAME=off")?;
        let mut bit = attribute(2, &[name.as_bytes(), b"\0"].concat());
        if state == "on" {
            bit.extend(attribute(3, b""));
        }
        bits.extend(attribute(1 | NESTED, &bit));
    }
    let device = attribute(2, &[interface.as_bytes(), b"\0"].concat());
    let wanted = attribute(3 | NESTED, &bits);
    let request = [attribute(1 | NESTED, &device), attribute(3 | NESTED, &wanted)].concat();
    ask(&socket, family, SET_FEATURES, &request).with_context(|| format!("{features:?} of {interface}")).map(drop)
}

/// An attribute, padded to words.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).expect("attributes here are short");
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of an attribute in a list.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let [a, b, c, d, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if u16::from_ne_bytes([c, d]) == kind {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// Sends a request and waits for what is said about it: attributes, or none.
fn ask(socket: &OwnedFd, family: u16, command: u8, attributes: &[u8]) -> Result<Vec<u8>> {
    /// `NLM_F_REQUEST | NLM_F_ACK`, and `NLMSG_ERROR`.
    const FLAGS: u16 = 1 | 4;
    const ERROR: u16 = 2;
    let length = u32::try_from(HEADERS + attributes.len())?;
    let head = [&length.to_ne_bytes()[..], &family.to_ne_bytes(), &FLAGS.to_ne_bytes(), &[0; 8], &[command, 1, 0, 0]];
    sendto(socket.as_raw_fd(), &[&head.concat(), attributes].concat(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut found = Vec::new();
    loop {
        let mut buffer = vec![0; 16 << 10];
        let got = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..got];
        while rest.len() >= HEADER {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            ensure!((HEADER..=rest.len()).contains(&length), "the kernel sent half a message");
            if u16::from_ne_bytes([rest[4], rest[5]]) == ERROR {
                let errno = i32::from_ne_bytes([rest[16], rest[17], rest[18], rest[19]]);
                if errno != 0 {
                    bail!(std::io::Error::from_raw_os_error(-errno));
                }
                return Ok(found);
            }
            found.extend(rest.get(HEADERS..length).unwrap_or_default());
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
