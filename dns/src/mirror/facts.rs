//! What is said of a name.

use fairlead_objects::zone::{Name, Said};

use crate::fast::is_denied;
use crate::wire::RecordType;
use crate::zone::Answer;
use crate::{WireName, Zone};

/// What may be said of a name in this server's place; nothing of one that does not exist. Whatever [`fast`](crate::fast) would
/// leave alone, or would answer with more than one record, is left to this server.
#[must_use]
pub fn told(zone: &Zone, name: &WireName) -> Option<Name> {
    zone.facts(name.as_wire())?;
    // The zone's own server is at one of these, and changes with others.
    if !is_denied(zone, name.as_wire()) {
        return Some(Name { name: name.to_string(), v4: Said::Nothing, v6: Said::Nothing });
    }
    let v4 = match zone.answer(name.as_wire(), RecordType::A) {
        Answer::V4(addresses) => one(&addresses),
        answer => none(&answer),
    };
    let v6 = match zone.answer(name.as_wire(), RecordType::AAAA) {
        Answer::V6(addresses) => one(&addresses),
        answer => none(&answer),
    };
    Some(Name { name: name.to_string(), v4, v6 })
}

fn one<T: Copy>(addresses: &[T]) -> Said<T> {
    if let [address] = addresses { Said::One(*address) } else { Said::Nothing }
}

fn none<T>(answer: &Answer<'_>) -> Said<T> {
    if *answer == Answer::NoData { Said::None } else { Said::Nothing }
}
