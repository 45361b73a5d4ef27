//! Files of JSON lines that count for one boot: their first line says which, and of what layout they are. A last line without its
//! end is what a crash leaves and is forgotten.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A line.
///
/// # Errors
/// The value is none that JSON has.
pub(crate) fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// The lines behind the first one, if that is as expected.
///
/// # Errors
/// It is not: what it is, if anything.
pub(crate) fn behind<'a, H: DeserializeOwned + PartialEq>(
    content: &'a [u8],
    expected: &H,
) -> Result<impl Iterator<Item = &'a [u8]> + use<'a, H>, Option<H>> {
    let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |end| &content[..end]);
    let mut lines = whole.split(|byte| *byte == b'\n');
    let header = lines.next().and_then(|line| serde_json::from_slice::<H>(line).ok());
    if header.as_ref() == Some(expected) { Ok(lines) } else { Err(header) }
}
