//! Objects on the wire. One is made slim while it is read, so that a page of a list is a page of slim objects; what
//! nobody uses and what is large in real clusters (who manages which field, the images of a node, the volumes of a pod)
//! is passed over without being read.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::relist::Reading;
use crate::ObjectKey;
use crate::convert::Slim;

/// An object: what it reads as, and what a watch needs of its metadata.
#[derive(Debug, Clone)]
pub(super) struct Wire<K> {
    pub(super) reading: Reading,
    metadata: ObjectMeta,
    kind: PhantomData<fn() -> K>,
}

impl<K: Slim> Wire<K> {
    /// Its name.
    pub(super) fn key(&self) -> ObjectKey {
        self.reading.key.clone().unwrap_or_else(|| ObjectKey::cluster(""))
    }
}

impl<'de, K: Slim + DeserializeOwned> Deserialize<'de> for Wire<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = deserializer.deserialize_map(Sections)?;
        let text = |field: &str| object.get("metadata")?.get(field)?.as_str().map(str::to_owned);
        let (name, namespace, resource_version) = (text("name"), text("namespace"), text("resourceVersion"));
        // An object of the cluster has no namespace.
        let key = name.clone().filter(|name| !name.is_empty());
        let key = key.map(|name| ObjectKey::new(namespace.clone().unwrap_or_default(), name));
        let slim = K::deserialize(Value::Object(object)).map_err(|error| error.to_string());
        let reading = match slim.and_then(|object| object.slim().map_err(|error| error.to_string())) {
            Ok((object, notes)) => {
                Reading { key, object: Some(object), reasons: notes.iter().map(ToString::to_string).collect() }
            }
            Err(reason) => Reading { key, object: None, reasons: vec![reason] },
        };
        let metadata = ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() };
        Ok(Self { reading, metadata, kind: PhantomData })
    }
}

impl<K: Resource> Resource for Wire<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What is passed over in a section of an object.
fn unused(section: &str) -> &'static [&'static str] {
    match section {
        "metadata" => &["managedFields", "ownerReferences", "finalizers"],
        "spec" => &["volumes", "affinity", "tolerations", "topologySpreadConstraints"],
        "status" => &[
            "conditions",
            "images",
            "volumesInUse",
            "volumesAttached",
            "nodeInfo",
            "capacity",
            "allocatable",
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
        ],
        _ => &[],
    }
}

/// Reads the sections of an object.
struct Sections;

impl<'de> Visitor<'de> for Sections {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = Map::new();
        while let Some(section) = map.next_key::<String>()? {
            let value = match unused(&section) {
                [] => map.next_value()?,
                unused => map.next_value_seed(Without(unused))?,
            };
            object.insert(section, value);
        }
        Ok(object)
    }
}

/// Reads a section without some of its fields.
struct Without(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Without {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        // A section may be absent in the form of null.
        Ok(deserializer.deserialize_option(self)?.map_or(Value::Null, Value::Object))
    }
}

impl<'de> Visitor<'de> for Without {
    type Value = Option<Map<String, Value>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section of an object")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some(field) = map.next_key::<String>()? {
            if self.0.contains(&field.as_str()) {
                map.next_value::<IgnoredAny>()?;
            } else {
                fields.insert(field, map.next_value()?);
            }
        }
        Ok(Some(fields))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::json;

    use super::*;
    use crate::Object;

    #[test]
    fn what_is_large_and_unused_is_passed_over() {
        let wire: Wire<Node> = serde_json::from_value(json!({
            "metadata": {"name": "n", "resourceVersion": "7", "managedFields": [{"fieldsV1": {"f:a": {}}}]},
            "spec": {"podCIDRs": ["10.0.0.0/24"]},
            // Not what they should be, and nobody looks.
            "status": {"images": "many", "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
        }))
        .unwrap();
        assert_eq!(wire.meta().resource_version.as_deref(), Some("7"));
        let Some(Object::Node(node)) = wire.reading.object else { panic!("{:?}", wire.reading) };
        assert_eq!((node.internal_ips.len(), node.pod_cidrs.len()), (1, 1));
    }

    #[test]
    fn an_object_that_cant_be_read_has_a_name_all_the_same() {
        let text = r#"{"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": 5}, "status": null}"#;
        let wire: Wire<Pod> = serde_json::from_str(text).unwrap();
        assert_eq!(wire.key(), ObjectKey::new("n", "p"));
        assert!(wire.reading.object.is_none() && wire.reading.reasons[0].contains("invalid type"));
    }
}
