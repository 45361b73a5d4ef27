//! Layouts of tables as text, as the catalog records them, and what is read by them: the content of a table in another
//! version's layout. Pure: [`crate::bpf`] has the tables.
//!
//! An agent need not know a layout to read it. Whoever makes a table leaves its layout beside it, so an older agent finds
//! that of a newer one, and takes by name what it knows.

mod convert;
mod recount;
mod rules;

use std::collections::BTreeSet;
use std::fmt;

pub use convert::Converter;
pub use recount::{Counts, recount};
pub use rules::{Loss, is_of_flows, loss, oldest};

/// A table's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The table's name.
    pub name: String,
    /// The layout's version.
    pub version: u32,
    /// What the table is, in the catalog's words.
    pub kind: String,
    /// Elements.
    pub elements: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// The fields of a key.
    pub key: Vec<Field>,
    /// The fields of a value.
    pub value: Vec<Field>,
}

/// A field of a key or of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name: `key.addr`, or `key` where there is one field alone.
    pub name: String,
    /// Where it begins, in bytes.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// Its bits, or groups of them, by name. None of a field that is a number or an address.
    pub bits: Vec<(String, u64)>,
}

impl Layout {
    /// Reads a layout.
    ///
    /// # Errors
    /// The text is none: says which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |line: &str| format!("{line:?} is no line of a layout");
        let mut lines = text.trim().lines();
        let head = lines.next().unwrap_or_default();
        let (name, rest) = head.split_once(" v").ok_or_else(|| wrong(head))?;
        let mut layout = Self::head(name, rest).ok_or_else(|| wrong(head))?;
        let mut bits = Vec::new();
        for line in lines {
            match line.strip_prefix("    ") {
                Some(set) => bits.push(set_of_bits(set).ok_or_else(|| wrong(line))?),
                None => layout.add(field(line.trim()).ok_or_else(|| wrong(line))?).ok_or_else(|| wrong(line))?,
            }
        }
        for (of, set) in bits {
            // Of a word with an owner the bits are those of its value.
            let named = [of.to_owned(), format!("{of}.value")];
            let field = layout.key.iter_mut().chain(&mut layout.value).find(|field| named.contains(&field.name));
            field.ok_or_else(|| wrong(of))?.bits.extend(set);
        }
        layout.check()?;
        Ok(layout)
    }

    fn head(name: &str, rest: &str) -> Option<Self> {
        let (version, rest) = rest.split_once(": ")?;
        let (rest, flags) = rest.split_once(" elements, flags ")?;
        let (kind, elements) = rest.rsplit_once(", ")?;
        Some(Self {
            name: name.to_owned(),
            version: version.parse().ok()?,
            kind: kind.to_owned(),
            elements: elements.parse().ok()?,
            flags: flags.parse().ok()?,
            key: Vec::new(),
            value: Vec::new(),
        })
    }

    fn add(&mut self, field: Field) -> Option<()> {
        let is_of = |part: &str| field.name.split('.').next() == Some(part);
        let fields = match () {
            () if is_of("key") => &mut self.key,
            () if is_of("value") => &mut self.value,
            () => return None,
        };
        fields.push(field);
        Some(())
    }

    /// Fields that overlap, or two of one name, can't be read.
    fn check(&self) -> Result<(), String> {
        for fields in [&self.key, &self.value] {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|field| field.offset);
            if let Some([one, other]) = sorted.array_windows().find(|[one, other]| one.end() > other.offset) {
                return Err(format!("{} and {} overlap", one.name, other.name));
            }
            let names: BTreeSet<_> = fields.iter().map(|field| &field.name).collect();
            if names.len() < fields.len() {
                return Err("two fields have one name".to_owned());
            }
        }
        Ok(())
    }

    /// Where the last field of a key ends, and the last one of a value. There may be unused bytes behind.
    #[must_use]
    pub fn ends(&self) -> [usize; 2] {
        [&self.key, &self.value].map(|fields| fields.iter().map(Field::end).max().unwrap_or_default())
    }
}

impl Field {
    fn end(&self) -> usize {
        self.offset.saturating_add(self.size)
    }
}

impl fmt::Display for Layout {
    /// As text that can be read again. What fields mean is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, kind, elements, flags, key, value } = self;
        writeln!(f, "{name} v{version}: {kind}, {elements} elements, flags {flags}")?;
        for Field { name, offset, size, bits } in key.iter().chain(value) {
            writeln!(f, "  {name}@{offset}+{size}")?;
            if !bits.is_empty() {
                let bits: Vec<_> = bits.iter().map(|(bit, mask)| format!("{bit}={mask:#x}")).collect();
                writeln!(f, "    {name}: {}", bits.join(" "))?;
            }
        }
        Ok(())
    }
}

/// `key.addr@0+16: meaning`
fn field(line: &str) -> Option<Field> {
    let (name, rest) = line.split_once('@')?;
    let place = rest.split([':', ' ']).next()?;
    let (offset, size) = place.split_once('+')?;
    Some(Field { name: name.to_owned(), offset: offset.parse().ok()?, size: size.parse().ok()?, bits: Vec::new() })
}

/// `value.flags: ONE=0x1 TWO=0x2`
fn set_of_bits(line: &str) -> Option<(&str, Vec<(String, u64)>)> {
    let (of, list) = line.split_once(": ")?;
    let bit = |word: &str| {
        let (name, mask) = word.split_once("=0x")?;
        Some((name.to_owned(), u64::from_str_radix(mask, 16).ok()?))
    };
    Some((of, list.split(' ').map(bit).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests;
