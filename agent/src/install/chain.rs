//! What the CNI configuration should be, given what it is: a pure function.
//!
//! The file is not ours alone. Meshes (istio-cni, linkerd-cni) append their plugin to the list that the runtime takes,
//! watch it, and append it again when it is gone. So our own part is kept right, and everything else is kept.
//!
//! Ours are the entry of our plugin, `name`, the versions, and the plugins of the setting `cni.chain`. Which of the
//! entries came from that setting is written beside them, under [`CHAIN`]: without it a plugin that the setting no longer
//! names could not be told from another's.

use std::str::FromStr;

use fairlead_cni::Version;
use fairlead_cni::protocol::DEFAULT_NETWORK;
use serde_json::{Map, Value, json};

use super::PLUGIN;

/// The key of the list under which the entries of `cni.chain` are repeated. Runtimes ignore keys that they do not know.
const CHAIN: &str = "fairleadChain";

/// Reference plugins that can't be behind ours: why, and what to do.
const REFUSED: [(&str, &str); 2] = [
    (
        "bandwidth",
        "puts its own qdiscs on pods' interfaces, where Fairlead's programs are: it fails, or limits nothing between \
         pods. Remove it: Fairlead itself enforces the annotations kubernetes.io/ingress-bandwidth and \
         kubernetes.io/egress-bandwidth",
    ),
    (
        "sbr",
        "moves every route of the interface out of the pod's main table, so that a pod with no other interface can't \
         open connections. Remove it: it belongs behind the plugin of an additional interface",
    ),
];

/// Why a plugin can't be behind ours, and what to do; nothing of one that can.
#[must_use]
pub fn refusal(kind: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == kind).map(|(_, why)| *why)
}

/// A plugin of the setting `cni.chain`: its entry in the list of plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainedPlugin(Map<String, Value>);

impl ChainedPlugin {
    /// Its `type`, the name of its executable.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0.get("type").and_then(Value::as_str).unwrap_or_default()
    }
}

impl FromStr for ChainedPlugin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = r#"for example {"type": "tuning", "mtu": 1400}"#;
        let value: Value =
            serde_json::from_str(text).map_err(|error| format!("not a JSON object ({error}); {example}"))?;
        let Value::Object(entry) = value else { return Err(format!("not a JSON object; {example}")) };
        match entry.get("type").and_then(Value::as_str) {
            None | Some("") => Err(format!("a plugin needs a `type`, the name of its executable; {example}")),
            Some(PLUGIN) => Err(format!("{PLUGIN} is already in the list; name only the plugins behind it")),
            Some(kind) => match refusal(kind) {
                Some(why) => Err(format!("{kind} {why}")),
                None => Ok(Self(entry)),
            },
        }
    }
}

/// Our part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The entry of our plugin.
    pub entry: Map<String, Value>,
    /// The plugins to put behind it.
    pub chain: Vec<ChainedPlugin>,
}

/// What has to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amended {
    /// The whole file.
    pub content: Vec<u8>,
    /// Whether somebody may still be writing the existing file, since no runtime can use it as it is.
    pub unfinished: bool,
    /// Whether something in the existing file could not be kept, so that it has to be copied first.
    pub loses: bool,
    /// What was not as it should be, for the log.
    pub why: &'static str,
}

impl Own {
    /// What to write in place of `existing`; nothing where that is as it should be.
    #[must_use]
    pub fn amend(&self, existing: Option<&[u8]>) -> Option<Amended> {
        let Some(existing) = existing else {
            return Some(self.written(Map::new(), self.plugins(Vec::new(), Vec::new()), false, "missing"));
        };
        let Ok(Value::Object(mut list)) = serde_json::from_slice(existing) else {
            // Whoever writes into the file itself has emptied it before.
            let loses = !existing.trim_ascii().is_empty();
            let written = self.written(Map::new(), self.plugins(Vec::new(), Vec::new()), loses, "not a JSON object");
            return Some(Amended { unfinished: true, ..written });
        };
        let recorded = match list.remove(CHAIN) {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        let (plugins, broken) = match list.remove("plugins") {
            Some(Value::Array(plugins)) => {
                let all = plugins.len();
                let usable: Vec<Value> = plugins.into_iter().filter(is_plugin).collect();
                let broken = usable.len() < all;
                (usable, broken)
            }
            None => (Vec::new(), false),
            Some(_) => (Vec::new(), true),
        };
        let why = if broken {
            "invalid list of plugins"
        } else if !plugins.iter().any(is_own) {
            "our plugin is missing"
        } else {
            "our entry differs"
        };
        let amended = self.written(list, self.plugins(plugins, recorded), broken, why);
        // By value: how others indent or order keys is theirs.
        let same = serde_json::from_slice::<Value>(existing).ok() == serde_json::from_slice(&amended.content).ok();
        (!same).then_some(amended)
    }

    /// The list of plugins: ours right, those of the setting behind it, and everybody else's as they are.
    fn plugins(&self, mut plugins: Vec<Value>, recorded: Vec<Value>) -> Vec<Value> {
        let wanted = self.wanted();
        // The setting named these, and does so no more.
        let mut kept = wanted.clone();
        for entry in recorded {
            match kept.iter().position(|each| *each == entry) {
                Some(at) => drop(kept.remove(at)),
                None => {
                    if let Some(at) = plugins.iter().position(|each| *each == entry) {
                        plugins.remove(at);
                    }
                }
            }
        }
        let own = plugins.iter().position(is_own);
        plugins.retain(|entry| !is_own(entry));
        let own = own.unwrap_or(0);
        plugins.insert(own, Value::Object(self.entry.clone()));
        // Where the setting's are there in its order, others may stand between them.
        let behind = &plugins[own + 1..];
        let mut rest = behind.iter();
        if !wanted.iter().all(|entry| rest.any(|there| there == entry)) {
            for entry in &wanted {
                if let Some(at) = plugins.iter().position(|each| each == entry) {
                    plugins.remove(at);
                }
            }
            let own = plugins.iter().position(is_own).unwrap_or(0);
            plugins.splice(own + 1..own + 1, wanted);
        }
        plugins
    }

    fn wanted(&self) -> Vec<Value> {
        self.chain.iter().map(|ChainedPlugin(entry)| Value::Object(entry.clone())).collect()
    }

    fn written(&self, mut list: Map<String, Value>, plugins: Vec<Value>, loses: bool, why: &'static str) -> Amended {
        // Runtimes that know `cniVersions` take the highest, and with it STATUS and GC; others take `cniVersion`. A plugin
        // behind ours may need a lower one: whatever we serve stays.
        if !serves(&list) {
            list.insert("cniVersion".to_owned(), json!("1.0.0"));
            list.insert("cniVersions".to_owned(), json!(["1.0.0", "1.1.0"]));
        }
        // Runtimes keep results under it, so it never changes.
        list.insert("name".to_owned(), json!(DEFAULT_NETWORK));
        list.insert("plugins".to_owned(), Value::Array(plugins));
        if !self.chain.is_empty() {
            list.insert(CHAIN.to_owned(), Value::Array(self.wanted()));
        }
        Amended { content: format!("{:#}\n", Value::Object(list)).into_bytes(), unfinished: loses, loses, why }
    }
}

fn is_own(entry: &Value) -> bool {
    entry["type"] == PLUGIN
}

/// Whether a runtime can read it: one that it can't makes the whole list useless.
fn is_plugin(entry: &Value) -> bool {
    entry["type"].as_str().is_some_and(|kind| !kind.is_empty())
}

/// Whether the versions of a list are all served by our plugin.
fn serves(list: &Map<String, Value>) -> bool {
    let served = |value: &Value| value.as_str().is_some_and(|text| Version::parse(Some(text)).is_ok());
    let more = match list.get("cniVersions") {
        None => true,
        Some(Value::Array(versions)) => versions.iter().all(served),
        Some(_) => false,
    };
    list.get("cniVersion").is_some_and(served) && more
}

/// The types of all plugins of a configuration, in its order.
#[must_use]
pub fn plugin_types(content: &[u8]) -> Vec<String> {
    let Ok(list) = serde_json::from_slice::<Value>(content) else { return Vec::new() };
    let plugins = list["plugins"].as_array().into_iter().flatten();
    plugins.filter_map(|entry| entry["type"].as_str().map(str::to_owned)).collect()
}

/// The version with which a runtime that knows `cniVersions` calls the plugins of a configuration: the highest, of those that
/// our plugin serves. Runtimes that don't know it take `cniVersion`.
#[must_use]
pub fn highest_version(content: &[u8]) -> Option<Version> {
    let list = serde_json::from_slice::<Value>(content).ok()?;
    let all = list["cniVersions"].as_array().into_iter().flatten().chain([&list["cniVersion"]]);
    all.filter_map(|version| Version::parse(Some(version.as_str()?)).ok()).max()
}

/// Whether a configuration gives pods to Fairlead: one with our plugin in it, or one whose first delegate is Fairlead, as
/// Multus has them. `own` is the name of our file.
///
/// Multus names its default network by `delegates`, a copy of the configuration, or by `clusterNetwork`, a network's name or
/// a file. Which network others than the first delegate lead to does not matter: they are further interfaces.
#[must_use]
pub fn leads_here(content: &[u8], own: &str) -> bool {
    serde_json::from_slice(content).is_ok_and(|value| leads(&value, own, 0))
}

fn leads(value: &Value, own: &str, depth: u8) -> bool {
    /// A Multus in front of a Multus has not been seen; a file that is made to be deep costs nothing.
    const DEEPEST: u8 = 8;
    let names_us = |value: &Value| {
        let Some(name) = value.as_str() else { return false };
        name == DEFAULT_NETWORK || name.rsplit('/').next() == Some(own)
    };
    depth < DEEPEST
        && (is_own(value)
            || names_us(&value["clusterNetwork"])
            || value["plugins"].as_array().into_iter().flatten().any(|each| leads(each, own, depth + 1))
            || value["delegates"]
                .as_array()
                .and_then(|all| all.first())
                .is_some_and(|each| leads(each, own, depth + 1))
            || value.get("delegate").is_some_and(|each| leads(each, own, depth + 1)))
}

#[cfg(test)]
mod tests;
