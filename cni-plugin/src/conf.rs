//! The network configuration on standard input.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::protocol::{Attachment, DEFAULT_SOCKET, Wanted};
use crate::{Error, Mac, Version};

/// What this plugin reads of its configuration. Keys it does not know are left alone, as CNI asks.
#[derive(Debug, Clone, PartialEq)]
pub struct NetConf {
    /// `cniVersion`
    pub version: Version,
    /// `name` of the network; empty where the verb comes without one.
    pub name: String,
    /// Where the agent listens: our own key `socket`.
    pub socket: PathBuf,
    /// `prevResult`, as it came.
    pub prev_result: Option<Value>,
    /// `runtimeConfig`, as it came: what a runtime passes for the capabilities that the configuration declares.
    pub runtime_config: Option<Value>,
    /// `cni.dev/valid-attachments` of a GC.
    pub valid_attachments: Option<Vec<Attachment>>,
}

/// Decodes standard input as a JSON object.
///
/// # Errors
/// Code 6.
pub(crate) fn decode(input: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(input)
        .map_err(|e| Error::Decode { what: "the network configuration on standard input", reason: e.to_string() })
}

/// Reads `cniVersion` alone, which every answer repeats.
///
/// # Errors
/// Code 6 when it is no text, code 1 when it is not served.
pub(crate) fn version(object: &Map<String, Value>) -> Result<Version, Error> {
    match object.get("cniVersion") {
        None | Some(Value::Null) => Version::parse(None),
        Some(Value::String(text)) => Version::parse(Some(text)),
        Some(other) => Err(Error::Decode { what: "cniVersion", reason: format!("{other} is not a string") }),
    }
}

impl NetConf {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Codes 1, 2, 6 and 7; the text names the key.
    pub(crate) fn parse(object: &Map<String, Value>) -> Result<Self, Error> {
        let version = version(object)?;
        let text = |key: &'static str| match object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(Error::Config { key, reason: format!("{other} is not a string") }),
        };
        if text("type")?.is_none_or(str::is_empty) {
            return Err(Error::Config { key: "type", reason: "missing; set it to fairlead-cni".to_owned() });
        }
        if let Some(ipam) = object.get("ipam").and_then(|ipam| ipam.get("type")) {
            return Err(Error::UnsupportedField {
                key: "ipam.type",
                value: ipam.to_string(),
                remedy: "the Fairlead agent assigns addresses; remove the key `ipam`",
            });
        }
        let socket = PathBuf::from(text("socket")?.unwrap_or(DEFAULT_SOCKET));
        if !socket.is_absolute() {
            let reason = format!("{socket:?} is not an absolute path; omit the key to use {DEFAULT_SOCKET}");
            return Err(Error::Config { key: "socket", reason });
        }
        Ok(Self {
            version,
            name: text("name")?.unwrap_or_default().to_owned(),
            socket,
            prev_result: object.get("prevResult").filter(|v| !v.is_null()).cloned(),
            runtime_config: object.get("runtimeConfig").cloned(),
            valid_attachments: valid_attachments(object)?,
        })
    }

    /// What the runtime asks for by the capabilities `ips` and `mac` (CONVENTIONS.md of CNI). Only an ADD reads it, so that
    /// nothing in it can make a DEL fail.
    ///
    /// # Errors
    /// Codes 2 and 7; the text names the key.
    pub(crate) fn wanted(&self) -> Result<Wanted, Error> {
        let of = |key: &str| self.runtime_config.as_ref().and_then(|config| config.get(key)).filter(|v| !v.is_null());
        let mut wanted = Wanted::default();
        if let Some(value) = of("ips") {
            wanted.ips = wanted_ips(value)?;
        }
        if let Some(value) = of("mac") {
            wanted.mac = wanted_mac(value)?;
        }
        Ok(wanted)
    }

    /// Fails without a name, which only VERSION may lack.
    ///
    /// # Errors
    /// Code 7.
    pub(crate) fn require_name(&self) -> Result<(), Error> {
        if self.name.is_empty() {
            let reason = "missing; use the name of the configuration list".to_owned();
            return Err(Error::Config { key: "name", reason });
        }
        Ok(())
    }
}

fn wanted_ips(value: &Value) -> Result<Vec<IpAddr>, Error> {
    const KEY: &str = "runtimeConfig.ips";
    let wrong =
        || Error::Config { key: KEY, reason: format!("{value} is not a list of addresses such as 10.244.1.7/24") };
    let mut ips: Vec<IpAddr> = Vec::new();
    for each in value.as_array().ok_or_else(wrong)? {
        // A pod's address stands alone on its link, whatever the length of the prefix.
        let text = each.as_str().and_then(|text| text.split('/').next()).ok_or_else(wrong)?;
        let ip: IpAddr = text.parse().map_err(|_| wrong())?;
        if ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
            let remedy = "a pod gets one address of each family; request at most one of each";
            return Err(Error::UnsupportedField { key: KEY, value: value.to_string(), remedy });
        }
        ips.push(ip);
    }
    Ok(ips)
}

fn wanted_mac(value: &Value) -> Result<Option<Mac>, Error> {
    const KEY: &str = "runtimeConfig.mac";
    let wrong = |reason: String| Error::Config { key: KEY, reason };
    let text = value.as_str().ok_or_else(|| wrong(format!("{value} is not a string")))?;
    if text.is_empty() {
        return Ok(None);
    }
    let mac: Mac = text.parse().map_err(wrong)?;
    if mac.is_unicast() {
        Ok(Some(mac))
    } else {
        Err(wrong(format!("{mac} is not a unicast address; the lowest bit of its first byte must be 0")))
    }
}

/// The list that a GC keeps. libcni gives it under its old name too.
fn valid_attachments(object: &Map<String, Value>) -> Result<Option<Vec<Attachment>>, Error> {
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        match object.get(key) {
            None | Some(Value::Null) => {}
            Some(list) => {
                return Vec::deserialize(list)
                    .map(Some)
                    .map_err(|e| Error::Config { key, reason: format!("expected [{{containerID, ifname}}]: {e}") });
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Result<NetConf, Error> {
        NetConf::parse(&decode(value.to_string().as_bytes())?)
    }

    #[test]
    fn c15_unknown_keys_are_left_alone() {
        let conf = parse(&json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "fairlead-cni", "runtimeConfig": {"portMappings": []},
            "capabilities": {}, "dns": {}, "somethingElse": 1, "ipam": {},
        }))
        .unwrap();
        assert_eq!((conf.version, conf.name.as_str()), (Version::V1_1_0, "pods"));
        assert_eq!(conf.socket, PathBuf::from(DEFAULT_SOCKET));
    }

    #[test]
    fn c13_wrong_configurations_name_the_key() {
        let table = [
            (json!({"cniVersion": "9.0.0", "type": "fairlead-cni"}), 1, "9.0.0"),
            (json!({"type": "fairlead-cni", "ipam": {"type": "host-local"}}), 2, "ipam.type = \"host-local\""),
            (json!({"cniVersion": 1, "type": "fairlead-cni"}), 6, "cniVersion"),
            (json!([]), 6, "standard input"),
            (json!({}), 7, "type"),
            (json!({"type": 7}), 7, "type"),
            (json!({"type": "fairlead-cni", "name": 1}), 7, "name"),
            (json!({"type": "fairlead-cni", "socket": ["a"]}), 7, "socket"),
            (json!({"type": "fairlead-cni", "socket": "cni.sock"}), 7, "socket"),
            (json!({"type": "fairlead-cni", "cni.dev/valid-attachments": [1]}), 7, "cni.dev/valid-attachments"),
        ];
        for (value, code, named) in table {
            let error = parse(&value).unwrap_err();
            assert_eq!(error.code(), code, "{value}: {error}");
            assert!(error.to_string().contains(named), "{value}: {error}");
        }
        assert_eq!(decode(b"{").unwrap_err().code(), 6);
        assert_eq!(decode(b"").unwrap_err().code(), 6);
    }

    #[test]
    fn c10_attachments_have_an_old_name_too() {
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let conf = parse(&json!({"type": "t", key: [{"containerID": "a", "ifname": "eth0"}]})).unwrap();
            let expected = Attachment { container_id: "a".to_owned(), ifname: "eth0".to_owned() };
            assert_eq!(conf.valid_attachments, Some(vec![expected]));
        }
    }

    #[test]
    fn c40_addresses_and_a_mac_are_asked_for_by_capabilities() {
        let wanted =
            |config: Value| parse(&json!({"type": "t", "runtimeConfig": config})).and_then(|conf| conf.wanted());
        assert_eq!(wanted(json!(null)).unwrap(), Wanted::default());
        assert_eq!(wanted(json!({"portMappings": [], "ips": null, "mac": ""})).unwrap(), Wanted::default());
        let both = wanted(json!({"ips": ["10.244.1.7/24", "fd00::7"], "mac": "02:00:00:00:00:07"})).unwrap();
        assert_eq!(both.ips, ["10.244.1.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(both.mac, Some(Mac([2, 0, 0, 0, 0, 7])));
        for (config, code, named) in [
            (json!({"ips": "10.244.1.7"}), 7, "runtimeConfig.ips"),
            (json!({"ips": [7]}), 7, "runtimeConfig.ips"),
            (json!({"ips": ["here"]}), 7, "runtimeConfig.ips"),
            (json!({"ips": ["10.244.1.7", "10.244.1.8/24"]}), 2, "one address of each family"),
            (json!({"mac": 7}), 7, "runtimeConfig.mac"),
            (json!({"mac": "here"}), 7, "runtimeConfig.mac"),
            (json!({"mac": "01:00:5e:00:00:01"}), 7, "not a unicast address"),
            (json!({"mac": "00:00:00:00:00:00"}), 7, "not a unicast address"),
        ] {
            let error = wanted(config.clone()).unwrap_err();
            assert_eq!(error.code(), code, "{config}: {error}");
            assert!(error.to_string().contains(named), "{config}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_input_is_read_or_refused(input in prop::collection::vec(any::<u8>(), 0..200)) {
            let result = decode(&input).and_then(|object| NetConf::parse(&object)).and_then(|conf| conf.wanted());
            if let Err(error) = result {
                prop_assert!([1, 2, 6, 7].contains(&error.code()));
            }
        }
    }
}
