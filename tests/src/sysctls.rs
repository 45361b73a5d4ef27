//! Settings of network namespaces, whatever the machine has.
//!
//! A new network namespace takes its IPv4 settings from the machine's, and if the machine says so
//! (`net.core.devconf_inherit_init_net`) its IPv6 settings too. What the kernel has once for all namespaces
//! (`net.core.*`, defaults of neighbours), and what changes nothing but speed (buffers and congestion control of TCP),
//! stays as the machine has it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

/// Addresses are good at once: nobody else has them.
pub(crate) const NO_DUPLICATES: &[(&str, &str)] =
    &[("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0"), ("ipv6/conf/default/accept_ra", "0")];

/// Settings with one value, of one family.
type Group = (&'static str, &'static str, &'static [&'static str]);

/// What the kernel is built with (`ipv4_devconf` in net/ipv4/devinet.c, `ipv6_devconf` in net/ipv6/addrconf.c). Forwarding
/// comes first, since it sets others.
const BUILT_IN: [Group; 22] = [
    ("ipv4", "0", &["forwarding", "accept_local", "arp_accept", "arp_announce", "arp_filter", "arp_ignore"]),
    ("ipv4", "0", &["arp_notify", "bc_forwarding", "bootp_relay", "disable_policy", "disable_xfrm"]),
    ("ipv4", "0", &["drop_gratuitous_arp", "drop_unicast_in_l2_multicast", "force_igmp_version"]),
    ("ipv4", "0", &["ignore_routes_with_linkdown", "log_martians", "medium_id", "promote_secondaries", "proxy_arp"]),
    ("ipv4", "0", &["proxy_arp_pvlan", "route_localnet", "rp_filter", "src_valid_mark", "tag"]),
    ("ipv4", "1", &["accept_redirects", "arp_evict_nocarrier", "secure_redirects", "send_redirects", "shared_media"]),
    ("ipv4", "1000", &["igmpv3_unsolicited_report_interval"]),
    ("ipv4", "10000", &["igmpv2_unsolicited_report_interval"]),
    ("ipv6", "0", &["forwarding", "accept_ra_from_local", "accept_ra_min_lft", "accept_ra_rt_info_max_plen"]),
    ("ipv6", "0", &["accept_ra_rt_info_min_plen", "accept_source_route", "accept_untracked_na", "addr_gen_mode"]),
    ("ipv6", "0", &["disable_ipv6", "disable_policy", "drop_unicast_in_l2_multicast", "drop_unsolicited_na"]),
    ("ipv6", "0", &["force_forwarding", "force_mld_version", "force_tllao", "ignore_routes_with_linkdown"]),
    ("ipv6", "0", &["keep_addr_on_down", "ndisc_notify", "ndisc_tclass", "optimistic_dad", "proxy_ndp"]),
    ("ipv6", "0", &["rpl_seg_enabled", "seg6_enabled", "seg6_require_hmac", "use_oif_addrs_only", "use_optimistic"]),
    ("ipv6", "0", &["use_tempaddr"]),
    ("ipv6", "1", &["accept_ra", "accept_ra_defrtr", "accept_ra_min_hop_limit", "accept_ra_mtu", "accept_ra_pinfo"]),
    ("ipv6", "1", &["accept_ra_rtr_pref", "accept_redirects", "autoconf", "dad_transmits", "enhanced_dad"]),
    ("ipv6", "1", &["ndisc_evict_nocarrier", "router_solicitation_delay", "suppress_frag_ndisc"]),
    ("ipv6", "-1", &["router_solicitations"]),
    ("ipv6", "16", &["max_addresses"]),
    ("ipv6", "64", &["hop_limit"]),
    ("ipv6", "1024", &["ra_defrtr_metric"]),
];

/// Those that `all` and `default` have different values of.
const APART: [(&str, &str); 4] = [
    ("ipv4/conf/all/accept_source_route", "0"),
    ("ipv4/conf/default/accept_source_route", "1"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "1"),
];

fn built_in() -> impl Iterator<Item = (String, &'static str)> {
    let grouped = BUILT_IN.into_iter().flat_map(|(family, value, names)| {
        let of = move |of| names.iter().map(move |name| (format!("{family}/conf/{of}/{name}"), value));
        of("all").chain(of("default"))
    });
    grouped.chain(APART.map(|(name, value)| (name.to_owned(), value)))
}

/// Gives this thread's network namespace, before it has interfaces, the settings that the kernel is built with. Those that
/// this kernel does not know are left out.
pub(crate) fn reset() -> Result<()> {
    for (name, value) in built_in() {
        let path = path(&name);
        // Writing takes a lock that all namespaces share, and there is nearly never anything to write.
        match fs::read_to_string(&path) {
            Ok(is) if is.trim() == value => {}
            Ok(_) => set(&[(&name, value)])?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }
    Ok(())
}

/// Sets sysctls below `/proc/sys/net` of this thread's network namespace.
pub(crate) fn set(settings: &[(&str, &str)]) -> Result<()> {
    for (name, value) in settings {
        let path = path(name);
        fs::write(&path, value).with_context(|| format!("can't set {} to {value}", path.display()))?;
    }
    Ok(())
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new("/proc/sys/net").join(name)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Values that differ from those that the kernel is built with, and that the kernel takes.
    fn other(value: &str) -> &'static str {
        if value == "1" { "0" } else { "1" }
    }

    #[test]
    fn a_namespace_with_any_settings_gets_the_kernels_own() {
        let differ = |wanted: fn(&'static str) -> &'static str| {
            let is = |name: &String| fs::read_to_string(path(name)).map(|text| text.trim().to_owned());
            let mut found: Vec<_> =
                built_in().filter_map(|(name, value)| Some((is(&name).ok()?, name, value))).collect();
            found.retain(|(is, _, value)| is != wanted(value));
            found
        };
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("this needs root");
            // Backwards, so that forwarding sets none of the others again.
            for (name, value) in
                built_in().collect::<Vec<_>>().into_iter().rev().filter(|(name, _)| path(name).exists())
            {
                set(&[(&name, other(value))]).unwrap();
            }
            assert!(differ(|value| value).len() > 80, "they are spoilt");
            reset().unwrap();
            assert_eq!(differ(|value| value), []);
        })
        .join()
        .unwrap();
    }
}
