//! The file as pairs of key and value.

use std::path::Path;

use serde_json::{Map, Value};

use crate::SettingsError;
use crate::error::Wrong;
use crate::keys::{Setting, nearest};

pub(crate) fn read(path: &Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })
}

/// Every key of a text with its value.
pub(crate) fn values(text: &str, known: &[&Setting], groups: &[&str]) -> Result<Vec<(String, Value)>, Wrong> {
    let map = match fairlead_objects::read_yaml(text).map_err(Wrong)? {
        Value::Null => return Ok(Vec::new()),
        Value::Object(map) => map,
        _ => return Err(Wrong("it holds no settings; write them as `key: value`".to_owned())),
    };
    let mut values = Vec::new();
    let mut wrong = Vec::new();
    for (key, value) in map {
        match value {
            Value::Object(below) if groups.contains(&key.as_str()) => values.extend(nested(&key, below)),
            Value::Null if groups.contains(&key.as_str()) => {}
            value if groups.contains(&key.as_str()) => {
                wrong.push(format!("{key}: {value} is invalid: write its settings below it, one per line"));
            }
            value => values.push((key, value)),
        }
    }
    values.retain(|(key, _)| {
        let is_known = known.iter().any(|setting| setting.key == *key);
        if !is_known {
            wrong.push(match nearest(key, known) {
                Some(near) => format!("{key}: unknown setting; did you mean {near}?"),
                None => format!("{key}: unknown setting; known are {}", all(known)),
            });
        }
        is_known
    });
    if wrong.is_empty() { Ok(values) } else { Err(Wrong(wrong.join("; "))) }
}

fn nested(group: &str, below: Map<String, Value>) -> impl Iterator<Item = (String, Value)> {
    below.into_iter().map(move |(key, value)| (format!("{group}.{key}"), value))
}

fn all(known: &[&Setting]) -> String {
    let mut keys: Vec<_> = known.iter().map(|setting| setting.key.as_str()).collect();
    keys.sort_unstable();
    keys.join(", ")
}
