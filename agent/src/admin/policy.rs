//! Why a flow may pass or not.

use fairlead_objects::ObjectKey;

use crate::compile::policy::{End, Explanation, World, explain as explain_flow};
use crate::model::Model;
use crate::network::Network;

pub(super) fn explain(model: &Model, from: &str, to: &str, protocol: u8, port: u16) -> Result<Explanation, String> {
    explain_flow(&World::of(model, &Network::default()), &end(from)?, &end(to)?, protocol, port)
        .map_err(|error| error.to_string())
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
