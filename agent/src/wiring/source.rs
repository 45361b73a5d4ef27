//! The address that what leaves by an interface has.
//!
//! A program can't ask the kernel on every version that this runs on (`BPF_FIB_LOOKUP_SRC` came with Linux 6.7), so the choice
//! is made beforehand, as the kernel would make it: by routes that name a source, among primary addresses, and never one that is
//! not known to be nobody else's yet. A deprecated one (RFC 4862 section 5.5.4) is the last resort, and so is what is alone on
//! its network, as virtual addresses are that move from node to node.

use std::net::IpAddr;

use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

/// An address of an interface, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
    pub(super) flags: AddressFlags,
}

impl Candidate {
    pub(super) fn new(ip: IpAddr, address: &AddressMessage) -> Self {
        let all = address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        let flags = all.unwrap_or_else(|| AddressFlags::from_bits_retain(address.header.flags.bits().into()));
        Self { ip, prefix: address.header.prefix_len, flags }
    }

    /// Whether the kernel takes packets to it and sends from it: it is not being checked, and nobody else has it.
    fn is_usable(&self) -> bool {
        let Self { ip: _, prefix: _, flags } = self;
        let checked = flags.contains(AddressFlags::Optimistic) || !flags.contains(AddressFlags::Tentative);
        checked && !flags.contains(AddressFlags::Dadfailed)
    }
}

/// The usable addresses of an interface, those first that what leaves by it is to have. `node_ips`: the Node's own, `named`:
/// those that routes by this interface name as source.
pub(super) fn ranked(mut candidates: Vec<Candidate>, node_ips: &[IpAddr], named: &[IpAddr]) -> Vec<(IpAddr, u8)> {
    candidates.retain(Candidate::is_usable);
    candidates.sort_by_key(|Candidate { ip, prefix, flags }| {
        let alone = *prefix == if ip.is_ipv4() { 32 } else { 128 };
        (
            !node_ips.contains(ip),
            !named.contains(ip),
            flags.contains(AddressFlags::Deprecated),
            flags.contains(AddressFlags::Secondary),
            alone,
        )
    });
    candidates.into_iter().map(|candidate| (candidate.ip, candidate.prefix)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: AddressFlags = AddressFlags::empty();

    fn first(candidates: &[(&str, u8, AddressFlags)], node_ips: &[&str], named: &[&str]) -> String {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let of = |&(ip, prefix, flags): &(&str, u8, AddressFlags)| Candidate { ip: ip.parse().unwrap(), prefix, flags };
        let ranked = ranked(candidates.iter().map(of).collect(), &parse(node_ips), &parse(named));
        ranked.first().map(|(ip, _)| ip.to_string()).unwrap_or_default()
    }

    #[test]
    fn s73_the_source_is_the_kernels_choice() {
        let deprecated = AddressFlags::Deprecated;
        // The newest comes first where the kernel lists them.
        let all = [
            ("2001:db8::99", 128, NONE),
            ("2001:db8::5", 64, deprecated),
            ("2001:db8::4", 64, AddressFlags::Tentative),
            ("2001:db8::3", 64, AddressFlags::Secondary),
            ("2001:db8::2", 64, NONE),
            ("2001:db8::1", 64, NONE),
        ];
        assert_eq!(first(&all, &[], &[]), "2001:db8::2");
        assert_eq!(first(&all, &["2001:db8::1"], &["2001:db8::3"]), "2001:db8::1", "the Node's own");
        assert_eq!(first(&all, &["192.0.2.1"], &["2001:db8::3"]), "2001:db8::3", "a route names it");
        assert_eq!(first(&all[..2], &[], &[]), "2001:db8::99");
        assert_eq!(first(&all[1..3], &[], &[]), "2001:db8::5", "the last resort");
        assert_eq!(first(&all[2..3], &["2001:db8::4"], &[]), "", "not yet");
        let failed = AddressFlags::Dadfailed | AddressFlags::Permanent;
        assert_eq!(first(&[("2001:db8::1", 64, failed)], &[], &[]), "", "somebody else's");
        let optimistic = AddressFlags::Tentative | AddressFlags::Optimistic;
        assert_eq!(first(&[("2001:db8::1", 64, optimistic)], &[], &[]), "2001:db8::1");
        let v4 = [("192.0.2.9", 32, NONE), ("192.0.2.2", 24, AddressFlags::Secondary), ("192.0.2.1", 24, NONE)];
        assert_eq!(first(&v4, &[], &[]), "192.0.2.1");
    }
}
