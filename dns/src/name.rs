//! Names as DNS writes them: length-prefixed labels, in lower case, closed by the root.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use hickory_proto::rr::Name;

/// The longest name on the wire, root included (RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 255;
/// The longest label (RFC 1035 section 2.3.4).
pub const MAX_LABEL: usize = 63;

/// A name in wire format, lower case, uncompressed, root included. Cheap to clone: it is the key of every table that
/// is made from the zone, in this process and in the kernel.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WireName(Arc<[u8]>);

impl Default for WireName {
    /// The root.
    fn default() -> Self {
        Self(Arc::new([0]))
    }
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A label is empty or longer than 63 bytes.
    #[error("{0:?} is not a domain name: write labels of 1 to 63 bytes, separated by single dots")]
    Label(String),
    /// The name is longer than 255 bytes on the wire.
    #[error("{0:?} is not a domain name: it is longer than 255 bytes on the wire, shorten it")]
    Length(String),
}

impl WireName {
    /// Reads `cluster.local` or `cluster.local.`; the empty text and `.` are the root.
    ///
    /// # Errors
    /// A label or the whole is empty or too long.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.').filter(|_| !text.is_empty()) {
            push_label(&mut wire, label.as_bytes()).ok_or_else(|| NameError::Label(text.to_owned()))?;
        }
        wire.push(0);
        if wire.len() > MAX_NAME { Err(NameError::Length(text.to_owned())) } else { Ok(Self(wire.into())) }
    }

    /// These labels in front of a name, or `None` when a label is empty or too long or the whole is too long.
    #[must_use]
    pub fn below(&self, labels: &[&str]) -> Option<Self> {
        let mut wire = Vec::with_capacity(labels.iter().map(|l| l.len() + 1).sum::<usize>() + self.0.len());
        for label in labels {
            push_label(&mut wire, label.as_bytes())?;
        }
        wire.extend_from_slice(&self.0);
        (wire.len() <= MAX_NAME).then(|| Self(wire.into()))
    }

    /// A name of bytes that are one, in lower case: a part of another, from a label's border on.
    pub(crate) fn from_wire(wire: &[u8]) -> Self {
        Self(wire.into())
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for WireName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for WireName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in labels(&self.0) {
            write!(f, "{}.", label.escape_ascii())?;
        }
        if self.0.len() <= 1 { f.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for WireName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn push_label(wire: &mut Vec<u8>, label: &[u8]) -> Option<()> {
    let length = u8::try_from(label.len()).ok().filter(|l| (1..=MAX_LABEL).contains(&usize::from(*l)))?;
    wire.push(length);
    wire.extend(label.iter().map(u8::to_ascii_lowercase));
    Some(())
}

/// The labels of an uncompressed name, the root left out. Stops where the bytes are no name.
pub fn labels(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&length, rest) = wire.split_first()?;
        let length = usize::from(length);
        if length == 0 || length > MAX_LABEL || length > rest.len() {
            return None;
        }
        let (label, rest) = rest.split_at(length);
        wire = rest;
        Some(label)
    })
}

/// The part of a name in front of a suffix, when the name ends in it at a label's border. Both in lower case.
#[must_use]
pub fn strip_suffix<'n>(name: &'n [u8], suffix: &[u8]) -> Option<&'n [u8]> {
    let front = name.strip_suffix(suffix)?;
    let walked: usize = labels(front).map(|label| label.len() + 1).sum();
    (walked == front.len()).then_some(front)
}

/// A name's bytes on the wire, in the client's spelling.
pub(crate) fn wire_of(name: &Name) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    for label in name {
        wire.push(u8::try_from(label.len()).unwrap_or(0));
        wire.extend_from_slice(label);
    }
    wire.push(0);
    debug_assert_eq!(labels(&wire).count(), name.iter().count(), "a decoded name is a name");
    wire
}

/// Whether a name, in lower case and wire format, is in one of these zones.
#[must_use]
pub fn covers(zones: &[WireName], name: &[u8]) -> bool {
    zones.iter().any(|zone| strip_suffix(name, zone.as_wire()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows_names() {
        let name = WireName::parse("Cluster.Local").unwrap();
        assert_eq!(name.as_wire(), b"\x07cluster\x05local\x00");
        assert_eq!(WireName::parse("cluster.local.").unwrap(), name);
        assert_eq!(name.to_string(), "cluster.local.");
        assert_eq!(WireName::parse(".").unwrap().as_wire(), b"\x00");
        assert_eq!(WireName::parse("").unwrap().to_string(), ".");
    }

    #[test]
    fn refuses_what_is_no_name() {
        assert!(matches!(WireName::parse("a..b"), Err(NameError::Label(_))));
        assert!(matches!(WireName::parse(&"x".repeat(64)), Err(NameError::Label(_))));
        assert!(matches!(WireName::parse(&"abcdefg.".repeat(32)), Err(NameError::Length(_))));
        assert_eq!(WireName::parse("local").unwrap().below(&["a", ""]), None);
    }

    #[test]
    fn a_suffix_counts_at_a_labels_border_only() {
        let zone = WireName::parse("local").unwrap();
        assert_eq!(strip_suffix(b"\x01a\x05local\x00", zone.as_wire()), Some(&b"\x01a"[..]));
        // One label whose bytes look like a length and the zone.
        assert_eq!(strip_suffix(b"\x08a\x05local\x00\x00", zone.as_wire()), None);
        assert_eq!(strip_suffix(b"\x07a\x05local\x00", zone.as_wire()), None);
        assert_eq!(strip_suffix(b"\x05local\x00", zone.as_wire()), Some(&b""[..]));
    }
}
