//! Why a flow may pass or not.

use fairlead_objects::ObjectKey;

use crate::compile::policy::{Direction, End, Explanation, World, explain as explain_flow};
use crate::model::Model;
use crate::network::Network;
use crate::plan::policy::CutOff;

/// `cut_off`: whoever is, nothing passes, whatever its policies say.
pub(super) fn explain(
    model: &Model,
    cut_off: &[CutOff],
    from: &str,
    to: &str,
    protocol: u8,
    port: u16,
) -> Result<Explanation, String> {
    let (from, to) = (end(from)?, end(to)?);
    let world = World::of(model, &Network::default());
    let mut explained = explain_flow(&world, &from, &to, protocol, port).map_err(|error| error.to_string())?;
    for (end, direction) in [(from, Direction::Egress), (to, Direction::Ingress)] {
        let pod = match end {
            End::Pod(key) => Some(key),
            End::Ip(ip) => world.owner(ip).map(|pod| pod.key.clone()),
        };
        let here =
            cut_off.iter().filter(|cut_off| cut_off.direction == direction && Some(&cut_off.pod) == pod.as_ref());
        for cut_off in here {
            explained.allow = false;
            explained.lines.push(format!("dropped in spite of that: {cut_off}"));
        }
    }
    Ok(explained)
}

fn end(text: &str) -> Result<End, String> {
    if let Ok(ip) = text.parse() {
        return Ok(End::Ip(ip));
    }
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(End::Pod(ObjectKey::new(namespace, name)))
        }
        _ => Err(format!("{text:?} is neither NAMESPACE/POD nor an address")),
    }
}

#[cfg(test)]
mod tests {
    use super::end;
    use crate::compile::policy::End;
    use fairlead_objects::ObjectKey;

    #[test]
    fn ends_are_pods_or_addresses() {
        assert_eq!(end("shop/cart"), Ok(End::Pod(ObjectKey::new("shop", "cart"))));
        assert_eq!(end("fd00::1"), Ok(End::Ip("fd00::1".parse().unwrap())));
        for wrong in ["cart", "/cart", "shop/", "a/b/c", "10.0.0", ""] {
            assert!(end(wrong).unwrap_err().contains("NAMESPACE/POD"), "{wrong}");
        }
    }
}
