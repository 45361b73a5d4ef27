//! XDP at uplinks: what is set, and where it can be.

use std::time::Duration;

/// Whether packets of known flows between clients outside and backends elsewhere are sent on at the driver of an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Xdp {
    /// At network cards whose driver can; not at virtual devices
    #[default]
    Auto,
    /// At every uplink whose driver can, virtual ones too
    Native,
    /// Nowhere
    Off,
}

/// What XDP depends on at an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device<'a> {
    /// The name of the driver, empty if it is not known.
    pub driver: &'a str,
    /// Whether it is plugged in somewhere: a card, or what a hypervisor shows as one.
    pub has_bus: bool,
    /// Whether the driver takes VLAN tags out of packets.
    pub strips_vlans: bool,
    /// Whether the card keeps packets of VLANs away that no device on it is of.
    pub filters_vlans: bool,
    /// Whether a VLAN device stands on it.
    pub has_vlans: bool,
}

/// How long a driver that refused is left alone, at first and at most. Each time it may write to the kernel's log.
const AGAIN: Duration = Duration::from_secs(60);
const AT_MOST: Duration = Duration::from_secs(6 * 60 * 60);

/// Drivers of cards that a hypervisor shows: with XDP most of them can't take large packets from it any more, which costs all other
/// traffic more than these flows gain.
const PARAVIRTUAL: [&str; 5] = ["virtio_net", "vmxnet3", "hv_netvsc", "vif", "xen_netfront"];

/// Drivers of devices that are made of others: programs run where packets come in, which is at those.
const OF_OTHERS: [&str; 2] = ["bonding", "team"];

impl Xdp {
    /// Why a device gets no XDP program. Nothing if it is to be tried.
    #[must_use]
    pub fn obstacle(self, device: &Device<'_>) -> Option<String> {
        let Device { driver, has_bus, strips_vlans, filters_vlans, has_vlans } = device;
        let is_virtual = !has_bus || PARAVIRTUAL.contains(driver);
        match self {
            Self::Off => Some("the setting xdp is off".to_owned()),
            Self::Auto if is_virtual => {
                let of = if driver.is_empty() { String::new() } else { format!(" ({driver})") };
                Some(format!("a virtual device{of}: to use XDP there as well, set xdp to native"))
            }
            _ if OF_OTHERS.contains(driver) => {
                Some("packets come in at its members, which have no address of the node".to_owned())
            }
            // The program could not tell which VLAN a packet is of.
            _ if *strips_vlans && *has_vlans => Some(
                "a VLAN device is on it, and the driver takes VLAN tags out of packets: switch that off with ethtool -K \
                 IF rxvlan off"
                    .to_owned(),
            ),
            // Devices of VLANs in other network namespaces are not seen from here.
            _ if *strips_vlans && *has_bus && !*filters_vlans => Some(
                "the driver takes VLAN tags out of packets, and lets packets of all VLANs in: switch one of both off with \
                 ethtool -K IF rxvlan off, or ethtool -K IF rx-vlan-filter on"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// When a driver that has refused so many times is asked again, with nothing changed. `is_taken`: because somebody else's program is
/// there, which may go.
#[must_use]
pub fn ask_again_after(times: u32, is_taken: bool) -> Duration {
    let doubled = if is_taken { 0 } else { times.saturating_sub(1).min(16) };
    AT_MOST.min(AGAIN * (1 << doubled))
}

/// Whether a driver did not take the program because of somebody else's, from the error number that it gave.
#[must_use]
pub const fn is_taken(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EBUSY | libc::EEXIST))
}

/// Why a driver did not take the program, from the error number that it gave.
#[must_use]
pub fn refusal(errno: Option<i32>, text: &str) -> String {
    match errno {
        _ if is_taken(errno) => {
            "another XDP program is attached there, and stays: see ip link show; to use Fairlead's, remove it".to_owned()
        }
        Some(libc::EOPNOTSUPP) => {
            "the driver has no native XDP, or not with the present settings of the device: LRO, GRO_HW or too few queues \
             are the usual reasons, and dmesg may name it"
                .to_owned()
        }
        Some(libc::EINVAL | libc::ERANGE | libc::E2BIG) => {
            format!("the driver refuses it ({text}): an MTU above 3498 bytes or LRO are the usual reasons, and dmesg may name it")
        }
        _ => format!("the driver refuses it ({text}): dmesg may name the reason"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s82_xdp_is_where_a_card_is_unless_it_is_set_otherwise() {
        let device = |driver, has_bus, strips_vlans, has_vlans| Device {
            driver,
            has_bus,
            strips_vlans,
            filters_vlans: true,
            has_vlans,
        };
        let [card, veth, guest] = [("mlx5_core", true), ("veth", false), ("virtio_net", true)]
            .map(|(driver, has_bus)| device(driver, has_bus, true, false));
        let is_tried = |mode: Xdp, device: &Device<'_>| mode.obstacle(device).is_none();
        assert_eq!([&card, &veth, &guest].map(|device| is_tried(Xdp::Auto, device)), [true, false, false]);
        assert_eq!([&card, &veth, &guest].map(|device| is_tried(Xdp::Native, device)), [true; 3]);
        assert_eq!([&card, &veth, &guest].map(|device| is_tried(Xdp::Off, device)), [false; 3]);
        // A tag that is not in the packet can't be seen; nobody gets it if there is no device for it.
        for (strips_vlans, has_vlans, tried) in [(true, true, false), (true, false, true), (false, true, true)] {
            assert_eq!(is_tried(Xdp::Native, &device("mlx5_core", true, strips_vlans, has_vlans)), tried);
        }
        // Unless the card lets it in all the same.
        let unfiltered = Device { filters_vlans: false, ..device("mlx5_core", true, true, false) };
        assert!(!is_tried(Xdp::Auto, &unfiltered) && !is_tried(Xdp::Native, &unfiltered));
        assert!(is_tried(Xdp::Auto, &Device { strips_vlans: false, ..unfiltered }));
        assert!(!is_tried(Xdp::Native, &device("bonding", false, false, false)));
    }

    #[test]
    fn s82_a_driver_that_refuses_is_asked_less_and_less_often() {
        let hours = |times| ask_again_after(times, false).as_secs_f64() / 3600.0;
        assert_eq!(ask_again_after(1, false), AGAIN);
        assert_eq!(ask_again_after(3, false), 4 * AGAIN);
        assert!((hours(u32::MAX) - 6.0).abs() < 0.1);
        let asked_in_a_day =
            (1..).scan(0.0, |at, times| Some(std::mem::replace(at, *at + hours(times)))).take_while(|at| *at < 24.0);
        assert!(asked_in_a_day.count() < 14);
        // Somebody else's program may go at any time.
        assert_eq!(ask_again_after(u32::MAX, true), AGAIN);
    }
}
