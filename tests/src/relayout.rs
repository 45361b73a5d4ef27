//! Tables as an agent of another version would have pinned them, for tests of what the next agent makes of them.

use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::maps::MapData;
use fairlead_agent::bpf::{Map, MapShape, PinDir};
use fairlead_agent::layout::{Converter, Field, Layout};
use fairlead_datapath::catalog::{Kind, TableId, recorded};

/// Pins what a table has as an agent of the next version would: fields in another order, with one more, a bit in another place, and
/// `elements`. Programs that are attached go on with the table that they have.
///
/// # Errors
/// The table is not pinned, or the kernel refuses.
pub fn relayout(pins: &Path, table: &str, elements: u32) -> Result<()> {
    let table = TableId::named(table).with_context(|| format!("there is no table {table}"))?;
    let (info, pins) = (table.info(), PinDir::open(pins)?);
    let (Some(path), Some(version)) = (pins.table(table), info.version) else { bail!("{table} is not pinned") };
    let own = recorded(info.name, version).context("it has no layout")?;
    let own = Layout::parse(own).map_err(anyhow::Error::msg)?;
    let layout = next(own.clone(), elements);
    let [key_size, value_size] = layout.ends().map(|end| end as u32);
    if !matches!(info.kind, Kind::Hash | Kind::LruHash | Kind::Array) {
        bail!("{table} is no hash and no array");
    }
    let shape =
        MapShape { map_type: info.kind.map_type(), key_size, value_size, max_entries: elements, flags: info.flags };
    let blank = (vec![0; key_size as usize], vec![0; value_size as usize]);
    let converter = Converter::new(&own, &layout, blank).map_err(anyhow::Error::msg)?;
    let (old, new) = (Map::open(&path)?, Map::create(info.name, shape)?);
    let mut outcome = Ok(());
    old.for_each(|key, value| {
        let made = converter.convert(key, value).context("it can't be said in the new layout");
        let put = made.and_then(|(key, value)| Ok(new.update(&key, &value, 1)?));
        // Of a smaller array the rest is empty.
        if value.iter().any(|byte| *byte != 0) && outcome.is_ok() {
            outcome = put;
        }
    })?;
    outcome?;
    let pin = format!("{}@{}", layout.name, layout.version);
    let text = layout.to_string();
    let shape = MapShape {
        map_type: Kind::Array.map_type(),
        key_size: 4,
        value_size: text.len() as u32,
        max_entries: 1,
        flags: 0,
    };
    let described = Map::create("layout", shape)?;
    described.update(&[0; 4], text.as_bytes(), 1)?;
    for (map, pin) in [(&described, format!("layout:{pin}")), (&new, pin)] {
        MapData::from_fd(map.as_fd().try_clone_to_owned()?)?.pin(pins.map(&pin))?;
    }
    Ok(std::fs::remove_file(path)?)
}

fn next(own: Layout, elements: u32) -> Layout {
    let mut layout = Layout { version: own.version + 1, elements, ..own };
    let mut offset = 8;
    for field in layout.value.iter_mut().rev() {
        offset = usize::next_multiple_of(offset, field.size.next_power_of_two().min(8));
        field.offset = offset;
        offset += field.size;
        // A place that no other bit has, and no group of them.
        let taken = field.bits.iter().fold(0, |all, (_, mask)| all | mask);
        let free = (0..field.size * 8).find(|place| taken >> place & 1 == 0);
        if let (Some((_, mask)), Some(free)) = (field.bits.first_mut(), free)
            && *mask == 1
        {
            *mask = 1 << free;
        }
    }
    layout.value.push(Field { name: "value.new".to_owned(), offset: 0, size: 8, bits: Vec::new() });
    layout
}
