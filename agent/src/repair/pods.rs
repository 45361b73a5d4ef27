//! The host sides of pods' veth pairs, with the routes and neighbours that lead to the pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fairlead_cni::Mac;
use fairlead_cni::protocol::{FIRST_POD_IFINDEX, host_link_of};

/// A pod, as ADD wired it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantPod {
    /// Its slot, which says the index of its host side.
    pub slot: u16,
    /// MAC address of the host side: the pod's packets are addressed to it.
    pub host_mac: Mac,
    /// MAC address that the pod's side got. It may have another since: [`HaveLink::peer_mac`].
    pub pod_mac: Mac,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The MTU that the host side had when it was wired, if that is known. With a smaller one the kernel drops what the pod
    /// sends, and tells nobody.
    pub mtu: Option<u32>,
}

impl WantPod {
    /// The index of its host side.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        FIRST_POD_IFINDEX + u32::from(self.slot)
    }

    /// The name of its host side.
    #[must_use]
    pub fn name(&self) -> String {
        host_link_of(self.host_mac)
    }
}

/// A setting of a host side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// Packets of its pod are forwarded, IPv4: 1.
    ForwardingV4,
    /// The same for IPv6.
    ForwardingV6,
    /// The check of return paths: 0, and loose (2) does no harm, which systemd gives to every new device. The programs check
    /// sources.
    RpFilter,
    /// Whether there is no IPv6: 0, where the pod has an address of it. Without it the kernel takes no IPv6 route there, and
    /// what hardens a node may switch it off for every device.
    DisableIpv6,
}

impl Setting {
    /// Every setting.
    pub const ALL: [Self; 4] = [Self::ForwardingV4, Self::ForwardingV6, Self::RpFilter, Self::DisableIpv6];

    /// What it should be.
    #[must_use]
    pub const fn value(self) -> i32 {
        match self {
            Self::ForwardingV4 | Self::ForwardingV6 => 1,
            Self::RpFilter | Self::DisableIpv6 => 0,
        }
    }

    /// Whether a value will do.
    #[must_use]
    pub const fn is_right(self, value: i32) -> bool {
        match self {
            Self::ForwardingV4 | Self::ForwardingV6 => value != 0,
            Self::RpFilter => value != 1,
            Self::DisableIpv6 => value == 0,
        }
    }
}

/// A host side that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HaveLink {
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Whether it is a port of another device, as of a bridge, which takes what is for the node's stack.
    pub is_port: bool,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// That of the pod's side, if it could be seen.
    pub peer_mac: Option<Mac>,
    /// Its settings. A kernel without IPv6 has none of those.
    pub settings: BTreeMap<Setting, i32>,
}

/// What is there of pods, by the index of the host side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HavePods {
    /// Host sides.
    pub links: BTreeMap<u32, HaveLink>,
    /// Routes of ours to single addresses.
    pub routes: BTreeSet<(u32, IpAddr)>,
    /// Permanent neighbours.
    pub neighbours: BTreeMap<(u32, IpAddr), Mac>,
}

/// What has to be done, in this order for each pod: the kernel takes routes only at a link that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Take the host side out of the device of which it is a port.
    Release(u32),
    /// Give the host side its MTU.
    Mtu(u32, u32),
    /// Give the host side its MAC address.
    Mac(u32, Mac),
    /// Change a setting of the host side.
    Set(u32, Setting),
    /// Set the host side up.
    Up(u32),
    /// Add a neighbour, or give it its MAC address.
    Neighbour(u32, IpAddr, Mac),
    /// Add a route.
    Route(u32, IpAddr),
    /// Remove a route of ours to an address that the pod does not have.
    Unroute(u32, IpAddr),
    /// Give the host side its name, by which DEL and CHECK find it. What comes before uses the one that it has.
    Rename(u32),
}

/// Whether these steps are about nothing but the MAC address of a pod that has been wired: a plugin behind ours gave it another.
#[must_use]
pub fn is_wired_but_for_the_mac(steps: &[Step], have: &HavePods) -> bool {
    let known = |step: &Step| matches!(step, Step::Neighbour(at, ip, _) if have.neighbours.contains_key(&(*at, *ip)));
    steps.iter().all(known)
}

/// Whether a step does no more than follow a pod that gave its interface another MAC address than the one `before`. That is for
/// a pod to do, as often as it likes: nobody has undone anything.
#[must_use]
pub fn follows_the_pod(step: Step, have: &HavePods, before: Mac) -> bool {
    matches!(step, Step::Neighbour(at, ip, mac) if mac != before && have.neighbours.get(&(at, ip)) == Some(&before))
}

/// What has to be done so that these pods are wired. What others have at the same interfaces is left alone, and so are
/// pods whose interface is gone, which end by it.
#[must_use]
pub fn compare_pods(want: &[WantPod], have: &HavePods) -> Vec<Step> {
    let mut steps = Vec::new();
    for pod in want {
        let ifindex = pod.ifindex();
        let Some(link) = have.links.get(&ifindex) else { continue };
        if link.is_port {
            steps.push(Step::Release(ifindex));
        }
        if let Some(mtu) = pod.mtu.filter(|mtu| link.mtu < *mtu) {
            steps.push(Step::Mtu(ifindex, mtu));
        }
        if link.mac != Some(pod.host_mac) {
            steps.push(Step::Mac(ifindex, pod.host_mac));
        }
        let matters = |setting: &Setting| *setting != Setting::DisableIpv6 || pod.ips.iter().any(IpAddr::is_ipv6);
        let wrong = link.settings.iter().filter(|(setting, value)| matters(setting) && !setting.is_right(**value));
        steps.extend(wrong.map(|(setting, _)| Step::Set(ifindex, *setting)));
        if !link.up {
            steps.push(Step::Up(ifindex));
        }
        let pod_mac = link.peer_mac.unwrap_or(pod.pod_mac);
        for &ip in &pod.ips {
            if have.neighbours.get(&(ifindex, ip)) != Some(&pod_mac) {
                steps.push(Step::Neighbour(ifindex, ip, pod_mac));
            }
            // Of a link that is down the kernel may show a route for a moment that goes with it.
            if !link.up || !have.routes.contains(&(ifindex, ip)) {
                steps.push(Step::Route(ifindex, ip));
            }
        }
        let routes = have.routes.iter().filter(|(at, ip)| *at == ifindex && !pod.ips.contains(ip));
        steps.extend(routes.map(|&(_, ip)| Step::Unroute(ifindex, ip)));
        if link.name != pod.name() {
            steps.push(Step::Rename(ifindex));
        }
    }
    steps
}
