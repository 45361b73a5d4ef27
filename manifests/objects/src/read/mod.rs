//! From text to objects: YAML with many documents, JSON, and lists of objects.

mod documents;
mod typed;

use serde_json::Value;

use crate::{Kind, Object, ObjectKey};

/// Something in a text that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("document {document}: {reason}")]
pub struct Invalid {
    /// Which document of the text it is in, from 1; documents without content don't count.
    pub document: usize,
    /// What it claims to be, where that could be read.
    pub kind: Option<Kind>,
    /// Its name, where that could be read.
    pub key: Option<ObjectKey>,
    /// What is wrong and what to do.
    pub reason: String,
    /// Whether this is about a piece of an object that is there all the same, in the entry before.
    pub piece: bool,
}

/// Reads all objects of a text. Objects of other kinds are left out. What can't be read has an entry that says why and
/// takes nothing else with it; an object with unreadable pieces is followed by an entry for each.
#[must_use]
pub fn read_str(text: &str) -> Vec<Result<Object, Invalid>> {
    read_all(text, Home::Default)
}

/// Reads as [`read_str`] does, and takes objects that name no namespace for those of this one. Where none is given they can't
/// be read: which one is meant depends on who will apply them.
#[must_use]
pub fn read_str_in(text: &str, namespace: Option<&str>) -> Vec<Result<Object, Invalid>> {
    read_all(text, namespace.map_or(Home::Required, Home::Of))
}

/// The namespace of objects that name none.
#[derive(Debug, Clone, Copy)]
enum Home<'a> {
    /// `default`.
    Default,
    /// This one.
    Of(&'a str),
    /// They have to name one.
    Required,
}

fn read_all(text: &str, home: Home<'_>) -> Vec<Result<Object, Invalid>> {
    let mut found = Vec::new();
    for (i, document) in documents::split(text).into_iter().enumerate() {
        let number = i + 1;
        match document.values() {
            Ok(values) => values.into_iter().for_each(|value| read_value(value, number, home, &mut found)),
            Err(reason) => {
                found.push(Err(Invalid { document: number, kind: None, key: None, reason, piece: false }));
            }
        }
    }
    found
}

/// Reads a text of one YAML document that is no object: settings.
///
/// # Errors
/// What is wrong with its syntax, and in which line, or that there are several documents.
pub fn read_yaml(text: &str) -> Result<Value, String> {
    let mut values = Vec::new();
    for document in documents::split(text) {
        values.extend(document.values()?);
    }
    match values.len() {
        0 => Ok(Value::Null),
        1 => Ok(values.remove(0)),
        count => Err(format!("{count} documents; write one")),
    }
}

/// Reads what one document holds: nothing, an object, or a list of them.
fn read_value(value: Value, document: usize, home: Home<'_>, found: &mut Vec<Result<Object, Invalid>>) {
    match value {
        Value::Null => {}
        Value::Object(map) => match typed::list_items(map) {
            Ok(items) => items.into_iter().for_each(|item| read_value(item, document, home, found)),
            Err(map) => typed::read(map, document, home, found),
        },
        _ => {
            let reason = "not an object; write apiVersion, kind and metadata".to_owned();
            found.push(Err(Invalid { document, kind: None, key: None, reason, piece: false }));
        }
    }
}

#[cfg(test)]
mod tests;
