//! What a node's agent says of the packets that were dropped.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::node::Node;

/// What `fairlead drops -o json` says.
#[derive(Debug, Clone)]
pub struct Drops(Value);

impl Drops {
    /// What it says now on a node.
    ///
    /// # Panics
    /// When the node's agent does not answer.
    #[must_use]
    #[track_caller]
    pub fn of(node: &Node) -> Self {
        let ended = node.fairlead(&["drops", "-o", "json"]);
        assert!(ended.ok(), "{ended:?}");
        Self(serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout)))
    }

    /// How often each reason occurred.
    ///
    /// # Panics
    /// When the answer has none.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        by_reason(&self.0["counts"])
    }

    /// How often one did.
    #[must_use]
    pub fn count(&self, reason: &str) -> u64 {
        self.counts().get(reason).copied().unwrap_or_default()
    }

    /// How often each reason occurred to a pod of the node since it came.
    ///
    /// # Panics
    /// When the answer says nothing of pods.
    #[must_use]
    pub fn of_pod(&self, pod: &str) -> BTreeMap<String, u64> {
        let pods = self.0["pods"].as_array().expect("there are pods");
        pods.iter().find(|one| one["pod"] == pod).map(|one| by_reason(&one["counts"])).unwrap_or_default()
    }

    /// The last packets that were dropped.
    ///
    /// # Panics
    /// When the answer has none.
    #[must_use]
    pub fn recent(&self) -> &[Value] {
        self.0["recent"].as_array().expect("there are recent ones")
    }
}

fn by_reason(counts: &Value) -> BTreeMap<String, u64> {
    let counts = counts.as_array().expect("there are counts");
    let count = |one: &Value| (one["reason"].as_str().unwrap().to_owned(), one["packets"].as_u64().unwrap());
    counts.iter().map(count).collect()
}
