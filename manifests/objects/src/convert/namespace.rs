//! Namespaces.

use k8s_openapi::api::core::v1;

use super::{Converted, Slim, meta};
use crate::{Kind, Namespace, Object};

/// The label that always holds a namespace's name (KEP-2161).
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

impl Slim for v1::Namespace {
    const KIND: Kind = Kind::Namespace;

    fn slim(&self) -> Converted {
        let name = meta::name(&self.metadata)?;
        let mut labels = meta::labels(&self.metadata);
        labels.insert(METADATA_NAME.to_owned(), name.clone());
        Ok((Object::Namespace(Namespace { name, labels }), Vec::new()))
    }
}
