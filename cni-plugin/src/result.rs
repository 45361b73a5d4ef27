//! The result of ADD, in the shape of each version of the specification.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::protocol::{PodAddress, Reservation};
use crate::wire::Taken;
use crate::{Error, Mac, Version};

/// What ADD made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made<'a> {
    /// What the agent gave.
    pub(crate) reservation: &'a Reservation,
    /// `CNI_IFNAME`
    pub(crate) ifname: &'a str,
    /// `CNI_NETNS`
    pub(crate) netns: &'a str,
    /// The families in which another interface has the pod's default route.
    pub(crate) taken: Taken,
}

fn with_prefix(address: &PodAddress) -> String {
    format!("{}/{}", address.ip, if address.ip.is_ipv4() { 32 } else { 128 })
}

fn default_route(address: &PodAddress) -> &'static str {
    if address.ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" }
}

impl Made<'_> {
    /// The result. What a plugin before this one in the chain made comes first.
    pub(crate) fn to_result(self, version: Version, prev_result: Option<&Value>) -> Value {
        if version < Version::V0_3_0 { self.legacy(version) } else { self.current(version, prev_result) }
    }

    fn current(self, version: Version, prev_result: Option<&Value>) -> Value {
        let before = |key: &str| -> Vec<Value> {
            prev_result.and_then(|prev| prev.get(key)).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let mut interfaces = before("interfaces");
        let pod_side = interfaces.len() + 1;
        interfaces.push(self.interface(version, &self.reservation.host_link, self.reservation.host_mac, ""));
        interfaces.push(self.interface(version, self.ifname, self.reservation.pod_mac, self.netns));
        let (mut ips, mut routes) = (before("ips"), before("routes"));
        for address in &self.reservation.addresses {
            let mut ip = json!({
                "address": with_prefix(address), "gateway": address.gateway.to_string(), "interface": pod_side,
            });
            if version < Version::V1_0_0 {
                ip["version"] = if address.ip.is_ipv4() { "4".into() } else { "6".into() };
            }
            ips.push(ip);
            // The route to the gateway is not told: without a gateway it would be read as one through it.
            if !self.taken.has(address.ip) {
                routes.push(json!({"dst": default_route(address), "gw": address.gateway.to_string()}));
            }
        }
        let dns = prev_result.and_then(|prev| prev.get("dns")).filter(|dns| !dns.is_null());
        let dns = dns.cloned().unwrap_or_else(|| json!({}));
        json!({
            "cniVersion": version.as_str(), "interfaces": interfaces, "ips": ips, "routes": routes, "dns": dns,
        })
    }

    fn interface(self, version: Version, name: &str, mac: Mac, sandbox: &str) -> Value {
        let mut interface = json!({"name": name, "mac": mac.to_string()});
        if !sandbox.is_empty() {
            interface["sandbox"] = sandbox.into();
        }
        if version >= Version::V1_1_0 {
            interface["mtu"] = self.reservation.mtu.into();
        }
        interface
    }

    /// 0.1.0 and 0.2.0 knew one address of each family and no interfaces.
    fn legacy(self, version: Version) -> Value {
        let mut result = Map::new();
        result.insert("cniVersion".to_owned(), version.as_str().into());
        for address in &self.reservation.addresses {
            let gateway = address.gateway.to_string();
            let route = json!({"dst": default_route(address), "gw": gateway});
            let routes = if self.taken.has(address.ip) { Vec::new() } else { vec![route] };
            let key = if address.ip.is_ipv4() { "ip4" } else { "ip6" };
            result.insert(key.to_owned(), json!({"ip": with_prefix(address), "gateway": gateway, "routes": routes}));
        }
        result.insert("dns".to_owned(), json!({}));
        Value::Object(result)
    }
}

/// Plugins in Go write an empty list as null.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What CHECK reads of `prevResult`.
#[derive(Debug, Deserialize)]
pub(crate) struct PrevResult {
    /// Interfaces, to which addresses refer by index.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) interfaces: Vec<PrevInterface>,
    /// Addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ips: Vec<PrevIp>,
    /// Routes in the pod.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) routes: Vec<PrevRoute>,
}

/// An interface of `prevResult`.
#[derive(Debug, Deserialize)]
pub(crate) struct PrevInterface {
    /// Its name.
    pub(crate) name: String,
    /// Its MAC address; other plugins' interfaces may have none, or one of another kind.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) mac: String,
    /// The namespace it is in, nothing for the node's.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) sandbox: String,
}

/// An address of `prevResult`.
#[derive(Debug, Deserialize)]
pub(crate) struct PrevIp {
    /// Address and prefix length.
    pub(crate) address: String,
    /// Index of its interface.
    #[serde(default)]
    pub(crate) interface: Option<usize>,
}

/// A route of `prevResult`.
#[derive(Debug, Deserialize)]
pub(crate) struct PrevRoute {
    /// Destination with prefix length.
    pub(crate) dst: String,
    /// Gateway.
    #[serde(default)]
    pub(crate) gw: Option<std::net::IpAddr>,
}

impl PrevResult {
    /// Reads it.
    ///
    /// # Errors
    /// Code 7.
    pub(crate) fn parse(value: &Value) -> Result<Self, Error> {
        Self::deserialize(value).map_err(|e| Error::Config { key: "prevResult", reason: e.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reservation() -> Reservation {
        let address = |ip: &str, gateway: &str| PodAddress {
            ip: ip.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            host_source: None,
        };
        Reservation {
            slot: 7,
            ifindex: 1_000_007,
            host_link: "fl0011223344".to_owned(),
            host_mac: Mac([0x0a, 0, 0, 0, 0, 1]),
            pod_mac: Mac([0x02, 0, 0, 0, 0, 1]),
            mtu: 1500,
            addresses: vec![address("10.244.1.5", "169.254.1.1"), address("fd00::5", "fe80::1")],
        }
    }

    fn result(version: Version, prev: Option<&Value>) -> Value {
        let taken = Taken::default();
        Made { reservation: &reservation(), ifname: "eth0", netns: "/run/netns/a", taken }.to_result(version, prev)
    }

    #[test]
    fn c14_result_of_1_1_0_has_interfaces_with_mtu() {
        let expected = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "fl0011223344", "mac": "0a:00:00:00:00:01", "mtu": 1500},
                {"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500, "sandbox": "/run/netns/a"},
            ],
            "ips": [
                {"address": "10.244.1.5/32", "gateway": "169.254.1.1", "interface": 1},
                {"address": "fd00::5/128", "gateway": "fe80::1", "interface": 1},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}],
            "dns": {},
        });
        assert_eq!(result(Version::V1_1_0, None), expected);
    }

    #[test]
    fn c14_result_of_1_0_0_has_no_mtu_and_no_ip_version() {
        let result = result(Version::V1_0_0, None);
        assert_eq!(result["interfaces"][0].get("mtu"), None);
        assert_eq!(result["ips"][0].get("version"), None);
    }

    #[test]
    fn c14_result_of_0_3_and_0_4_says_the_ip_version() {
        for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
            let result = result(version, None);
            assert_eq!(result["cniVersion"], version.as_str());
            assert_eq!((&result["ips"][0]["version"], &result["ips"][1]["version"]), (&json!("4"), &json!("6")));
            assert_eq!(result["interfaces"][0].get("mtu"), None);
        }
    }

    #[test]
    fn c14_result_of_0_1_and_0_2_has_one_address_a_family() {
        for version in [Version::V0_1_0, Version::V0_2_0] {
            let result = result(version, None);
            let expected = json!({
                "ip": "10.244.1.5/32", "gateway": "169.254.1.1",
                "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
            });
            assert_eq!(result["ip4"], expected);
            assert_eq!(result["ip6"]["ip"], "fd00::5/128");
            assert_eq!(result.get("interfaces"), None);
        }
    }

    #[test]
    fn c3_result_keeps_what_the_chain_made_before() {
        let prev = json!({
            "interfaces": [{"name": "lo"}], "ips": [{"address": "127.0.0.1/8", "interface": 0}],
            "dns": {"nameservers": ["10.96.0.10"]},
        });
        let result = result(Version::V1_0_0, Some(&prev));
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
        assert_eq!(result["ips"][0]["address"], "127.0.0.1/8");
        assert_eq!(result["ips"][1]["interface"], 2);
        assert_eq!(result["dns"], prev["dns"]);
    }

    #[test]
    fn c41_lists_that_are_null_are_empty_ones() {
        let prev = json!({"interfaces": null, "ips": null, "routes": null, "dns": null});
        let after = result(Version::V1_0_0, Some(&prev));
        assert_eq!(after, result(Version::V1_0_0, None));
        let read = PrevResult::parse(&prev).unwrap();
        assert!(read.interfaces.is_empty() && read.ips.is_empty() && read.routes.is_empty());
        let nulls =
            json!({"interfaces": [{"name": "lo", "mac": null, "sandbox": null}, {"name": "ib0", "mac": "80:00:02"}]});
        assert_eq!(PrevResult::parse(&nulls).unwrap().interfaces.len(), 2);
    }

    #[test]
    fn c39_a_further_interface_tells_of_no_default_route() {
        let taken = Taken { v4: true, v6: false };
        let made = Made { reservation: &reservation(), ifname: "net1", netns: "/run/netns/a", taken };
        let result = made.to_result(Version::V1_1_0, None);
        assert_eq!(result["routes"], json!([{"dst": "::/0", "gw": "fe80::1"}]));
        assert_eq!(result["ips"].as_array().unwrap().len(), 2);
        assert_eq!(made.to_result(Version::V0_2_0, None)["ip4"]["routes"], json!([]));
    }
}
