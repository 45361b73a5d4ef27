//! Flags and the keys that they have in a file.

use std::ffi::OsString;

use clap::{Arg, ArgAction};
use serde_json::Value;

/// The name of values that are objects in a file.
const OBJECT: &str = "JSON";

/// A setting: a key of the file and the flag behind it.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The key, as `healthz.bind`.
    pub(crate) key: String,
    long: String,
    is_list: bool,
    /// A list whose flag may be given without a value: for one that is empty.
    may_be_empty: bool,
    is_switch: bool,
    /// Whether a value is an object, which its flag takes as JSON.
    is_object: bool,
    /// A list whose flag takes `NAME=VALUE[,VALUE...]`: it may be a map in a file.
    is_map: bool,
}

impl Setting {
    /// The setting of a flag; nothing of what is no flag.
    pub(crate) fn new(arg: &Arg, groups: &[&str]) -> Option<Self> {
        let long = arg.get_long()?;
        let is_named = |fits: &dyn Fn(&str) -> bool| {
            arg.get_value_names().is_some_and(|names| names.iter().any(|name| fits(name)))
        };
        Some(Self {
            key: key(long, groups),
            long: long.to_owned(),
            is_list: matches!(arg.get_action(), ArgAction::Append),
            may_be_empty: arg.get_num_args().is_some_and(|count| count.min_values() == 0),
            is_switch: matches!(arg.get_action(), ArgAction::SetTrue),
            is_object: is_named(&|name| name == OBJECT),
            is_map: is_named(&|name| name.contains('=')),
        })
    }

    /// A value as flags.
    pub(crate) fn flags(&self, value: &Value) -> Result<Vec<OsString>, String> {
        let Self { key: _, long, is_list, may_be_empty, is_switch, is_object, is_map } = self;
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(values) if *is_list && *may_be_empty && values.is_empty() => {
                Ok(vec![OsString::from(format!("--{long}"))])
            }
            Value::Array(values) if *is_list => {
                let flags: Result<Vec<_>, _> = values.iter().map(|value| flag(long, value, *is_object)).collect();
                Ok(flags?.into_iter().map(OsString::from).collect())
            }
            Value::Object(entries) if *is_list && *is_map => {
                entries.iter().map(|(name, value)| Ok(entry(long, name, value)?.into())).collect()
            }
            Value::Array(_) => Err("takes one value, not a list".to_owned()),
            _ if *is_list => Err(format!("{value} is invalid: expected a list, such as [a, b]")),
            Value::Bool(value) if *is_switch => {
                Ok(value.then(|| OsString::from(format!("--{long}"))).into_iter().collect())
            }
            _ if *is_switch => Err(format!("{value} is invalid: use true or false")),
            value => Ok(vec![flag(long, value, *is_object)?.into()]),
        }
    }
}

fn flag(long: &str, value: &Value, is_object: bool) -> Result<String, String> {
    match value {
        Value::Object(_) if is_object => Ok(format!("--{long}={value}")),
        _ if is_object => Err(format!("{value} is invalid: expected an object, such as {{type: tuning}}")),
        Value::String(text) => Ok(format!("--{long}={text}")),
        Value::Number(_) | Value::Bool(_) => Ok(format!("--{long}={value}")),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(format!("{value} is invalid: expected a plain value")),
    }
}

/// An entry of a map as a flag.
fn entry(long: &str, name: &str, value: &Value) -> Result<String, String> {
    let values: Option<Vec<&str>> = match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) if !values.is_empty() => values.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let values =
        values.ok_or_else(|| format!("{name}: {value} is invalid: expected a list of texts, such as [a, b]"))?;
    Ok(format!("--{long}={name}={}", values.join(",")))
}

/// `healthz-bind` is `healthz.bind` if `healthz` is a group, `log-level` is `logLevel`, and `external-ips` is
/// `externalIPs`, as Kubernetes writes it.
fn key(long: &str, groups: &[&str]) -> String {
    let below = |group: &&str| long.strip_prefix(*group).and_then(|rest| rest.strip_prefix('-'));
    match groups.iter().find_map(|group| Some((group, below(group)?))) {
        Some((group, rest)) => format!("{group}.{}", camel(rest)),
        None => camel(long),
    }
}

fn camel(kebab: &str) -> String {
    let mut words = kebab.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        match word {
            "ips" => return text + "IPs",
            "cidrs" => return text + "CIDRs",
            _ => {}
        }
        let (head, tail) = word.split_at(word.len().min(1));
        text + &head.to_ascii_uppercase() + tail
    })
}

/// The known key that is nearest to an unknown one, if any is near.
pub(crate) fn nearest<'a>(key: &str, known: &[&'a Setting]) -> Option<&'a str> {
    let likeness = |setting: &&'a Setting| (strsim::jaro_winkler(key, &setting.key), setting.key.as_str());
    let best = known.iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.7).then_some(best.1)
}
