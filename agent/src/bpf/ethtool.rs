//! What a network device's driver says of itself: ethtool's old system call, which every kernel has, of the network namespace
//! that this runs in.
#![expect(unsafe_code, reason = "a system call that no crate wraps")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `SIOCETHTOOL` (include/uapi/linux/sockios.h).
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `ETHTOOL_GDRVINFO` and `ETHTOOL_GFLAGS` (include/uapi/linux/ethtool.h).
const DRIVER_INFO: u32 = 0x03;
const FLAGS: u32 = 0x25;

/// `ETHTOOL_GSSET_INFO`, `ETHTOOL_GSTRINGS` and `ETHTOOL_GFEATURES`: how many features there are, their names, and which are on.
const SETS: u32 = 0x37;
const STRINGS: u32 = 0x1b;
const FEATURES: u32 = 0x3a;

/// `ETH_SS_FEATURES`.
const OF_FEATURES: u32 = 4;

/// `ETH_GSTRING_LEN`.
const NAME: usize = 32;

/// No kernel has more features, so far by a factor of four.
const MOST: usize = 256;

/// The name of the feature by which a card keeps away what is of no VLAN device on it (net/ethtool/common.c).
const VLAN_FILTER: &str = "rx-vlan-filter";

/// `ETH_FLAG_RXVLAN`.
const RXVLAN: u32 = 1 << 8;

/// What is known of a driver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Driver {
    /// Its name, empty if it says none.
    pub(super) name: String,
    /// Where the device is plugged in; empty of one that is nowhere.
    pub(super) bus: String,
    /// Whether it takes VLAN tags out of packets.
    pub(super) strips_vlans: bool,
    /// Whether the card keeps packets of VLANs away that no device on it is of.
    pub(super) filters_vlans: bool,
}

/// The head of `struct ethtool_drvinfo`, and the rest of it.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rest: [u8; 64],
}

/// `struct ethtool_value`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// `struct ethtool_sset_info` for one set.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SetInfo {
    cmd: u32,
    reserved: u32,
    mask: u64,
    number: u32,
    rest: u32,
}

/// `struct ethtool_gstrings`, with room for names.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Strings {
    cmd: u32,
    set: u32,
    number: u32,
    names: [[u8; NAME]; MOST],
}

/// `struct ethtool_gfeatures`, with room for blocks of 32.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Features {
    cmd: u32,
    blocks: u32,
    features: [Block; MOST / 32],
}

/// `struct ethtool_get_features_block`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Block {
    available: u32,
    requested: u32,
    active: u32,
    never_changed: u32,
}

/// Whether a feature of an interface is on, by its name.
fn has_feature(socket: &OwnedFd, interface: &str, name: &str) -> io::Result<bool> {
    let mut sets = SetInfo { cmd: SETS, reserved: 0, mask: 1 << OF_FEATURES, number: 0, rest: 0 };
    ask(socket, interface, sets.as_mut_bytes())?;
    let number = usize::try_from(sets.number).ok().filter(|number| *number <= MOST);
    let number = number.ok_or_else(|| io::Error::other("more features than there is room for"))?;
    let mut strings: Strings = zerocopy::FromZeros::new_zeroed();
    (strings.cmd, strings.set, strings.number) = (STRINGS, OF_FEATURES, sets.number);
    ask(socket, interface, strings.as_mut_bytes())?;
    let Some(at) = strings.names.iter().take(number).position(|found| text(found) == name) else { return Ok(false) };
    let mut features: Features = zerocopy::FromZeros::new_zeroed();
    (features.cmd, features.blocks) = (FEATURES, sets.number.div_ceil(32));
    ask(socket, interface, features.as_mut_bytes())?;
    Ok(features.features.get(at / 32).is_some_and(|block| block.active & (1 << (at % 32)) != 0))
}

/// Asks the driver of an interface.
///
/// # Errors
/// There is no such interface.
pub(super) fn driver(interface: &str) -> io::Result<Driver> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut info: DriverInfo = zerocopy::FromZeros::new_zeroed();
    info.cmd = DRIVER_INFO;
    let mut found = Driver::default();
    // Drivers need not say who they are.
    match ask(&socket, interface, info.as_mut_bytes()) {
        Ok(()) => (found.name, found.bus) = (text(&info.driver), bus(text(&info.bus))),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Err(error),
        Err(_) => {}
    }
    let mut flags = Value { cmd: FLAGS, data: 0 };
    ask(&socket, interface, flags.as_mut_bytes())?;
    found.strips_vlans = flags.data & RXVLAN != 0;
    // A kernel that can't say is taken for one whose card does not.
    found.filters_vlans = has_feature(&socket, interface, VLAN_FILTER).unwrap_or(false);
    Ok(found)
}

/// Asks one question; `request` begins with its number, and is what the kernel writes to.
fn ask(socket: &OwnedFd, interface: &str, request: &mut [u8]) -> io::Result<()> {
    // SAFETY: a struct of plain numbers and a union of such and pointers.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= ifreq.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in ifreq.ifr_name.iter_mut().zip(interface.bytes()) {
        // Signed on x86-64, and not on arm64.
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    // SAFETY: the request has the size that its number says, is writable, and lives over the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut ifreq) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Where a device is plugged in. Drivers of virtual ones say `N/A`, or which of their kinds one is.
fn bus(said: String) -> String {
    if ["N/A", "tun", "tap"].contains(&said.as_str()) { String::new() } else { said }
}

fn text(bytes: &[u8]) -> String {
    CStr::from_bytes_until_nul(bytes).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_plugged_in_nowhere() {
        let found = driver("lo").unwrap();
        assert_eq!((found.bus.as_str(), found.strips_vlans), ("", false), "{found:?}");
        assert!(!found.filters_vlans, "{found:?}");
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        assert!(has_feature(&socket, "lo", "loopback").unwrap());
        assert!(!has_feature(&socket, "lo", "no-such-feature").unwrap());
        assert!(driver("no-such-device").is_err());
        assert!(driver("a-name-that-no-device-can-have").is_err());
    }
}
