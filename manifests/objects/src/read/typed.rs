//! From a parsed document to an object: which kind it is, its fields, its slim form.

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Home, Invalid};
use crate::convert::{ClusterNetworkPolicy, Converted, Error, Problem, Slim};
use crate::{Kind, Object, ObjectKey};

/// What a document says that it is.
enum Claim {
    /// An object of this kind.
    Known(Kind),
    /// An object of this kind in a version that is not read.
    Version(Kind),
    /// An object of a kind that nobody here wants.
    Other,
}

/// The items of a list, each with the kind that the list gives it, or the map again when it is no list.
pub(super) fn list_items(mut map: Map<String, Value>) -> Result<Vec<Value>, Map<String, Value>> {
    let Some(item_kind) = map.get("kind").and_then(Value::as_str).and_then(|kind| kind.strip_suffix("List")) else {
        return Err(map);
    };
    let item_kind = Value::from(item_kind);
    let Some(Value::Array(mut items)) = map.remove("items") else {
        // `kubectl` prints an empty list as null.
        return Ok(Vec::new());
    };
    // The items of a PodList carry neither kind nor version; those of a List carry both.
    if item_kind != "" {
        let version = map.get("apiVersion").cloned().unwrap_or_default();
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.entry("kind").or_insert_with(|| item_kind.clone());
            item.entry("apiVersion").or_insert_with(|| version.clone());
        }
    }
    Ok(items)
}

/// Reads one object.
pub(super) fn read(
    mut map: Map<String, Value>,
    document: usize,
    home: Home<'_>,
    found: &mut Vec<Result<Object, Invalid>>,
) {
    if let Home::Of(namespace) = home {
        take_home(&mut map, namespace);
    }
    let invalid =
        |kind, reason| Invalid { document, kind, key: kind.and_then(|kind| key(kind, &map)), reason, piece: false };
    let text = |field: &str| map.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some(kind) = text("kind") else {
        found.push(Err(invalid(None, "kind: missing; write which kind of object this is".to_owned())));
        return;
    };
    match claim(text("apiVersion"), kind) {
        Claim::Other => tracing::debug!(document, kind, "ignored an object of a kind that is not used"),
        Claim::Version(kind) => {
            let given = text("apiVersion").unwrap_or("missing").to_owned();
            let reason =
                format!("apiVersion: {given}; a {} is read as {}", kind.as_str(), kind.api_versions().join(" or "));
            found.push(Err(invalid(Some(kind), reason)));
        }
        Claim::Known(kind) => {
            if matches!(home, Home::Required) && !kind.is_of_cluster() && has_no_namespace(&map) {
                let reason = "metadata.namespace: missing; write it, or give --namespace".to_owned();
                found.push(Err(invalid(Some(kind), reason)));
                return;
            }
            let on_error = invalid(Some(kind), String::new());
            match convert(kind, Value::Object(map)) {
                Err(reason) => found.push(Err(Invalid { reason, ..on_error })),
                Ok((object, notes)) => {
                    found.push(Ok(object));
                    let piece =
                        |note: Error| Err(Invalid { reason: note.to_string(), piece: true, ..on_error.clone() });
                    found.extend(notes.into_iter().map(piece));
                }
            }
        }
    }
}

/// Gives an object of a namespace that names none this one.
fn take_home(map: &mut Map<String, Value>, namespace: &str) {
    let kind = map.get("kind").and_then(Value::as_str);
    let is_of_cluster = Kind::ALL.into_iter().any(|known| known.is_of_cluster() && Some(known.as_str()) == kind);
    if !is_of_cluster
        && has_no_namespace(map)
        && let Some(Value::Object(metadata)) = map.get_mut("metadata")
    {
        metadata.insert("namespace".to_owned(), Value::from(namespace));
    }
}

/// Whether it has metadata, and they name no namespace.
fn has_no_namespace(map: &Map<String, Value>) -> bool {
    let namespace = map.get("metadata").and_then(Value::as_object).map(|metadata| metadata.get("namespace"));
    namespace.is_some_and(|namespace| namespace.is_none_or(|text| text.is_null() || text == ""))
}

fn claim(api_version: Option<&str>, kind: &str) -> Claim {
    let Some(kind) = Kind::ALL.into_iter().find(|known| known.as_str() == kind) else { return Claim::Other };
    let wanted = kind.api_version();
    let group = |version: &str| version.rsplit_once('/').map(|(group, _)| group.to_owned());
    match api_version {
        None => Claim::Version(kind),
        Some(version) if kind.api_versions().contains(&version) => Claim::Known(kind),
        // Where NetworkPolicies and Pods' neighbours lived long ago.
        Some(version) if group(version) == group(wanted) || version.starts_with("extensions/") => Claim::Version(kind),
        Some(_) => Claim::Other,
    }
}

/// The key of an object that may not be readable as a whole.
fn key(kind: Kind, map: &Map<String, Value>) -> Option<ObjectKey> {
    let metadata = map.get("metadata")?;
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = text("name")?;
    Some(if kind.is_of_cluster() {
        ObjectKey::cluster(name)
    } else {
        ObjectKey::new(text("namespace").unwrap_or("default"), name)
    })
}

fn convert(kind: Kind, value: Value) -> Result<(Object, Vec<Error>), String> {
    // Misspelt fields are worth a word where a person writes them and where a lost field changes what is allowed.
    match kind {
        Kind::Service => slim::<core::Service>(value, &["spec."]),
        Kind::NetworkPolicy => slim::<networking::NetworkPolicy>(value, &["spec."]),
        // It names its unknown fields itself: they close what they are in.
        Kind::ClusterNetworkPolicy => slim::<ClusterNetworkPolicy<true>>(value, &[]),
        Kind::EndpointSlice => slim::<discovery::EndpointSlice>(value, &["endpoints[", "ports["]),
        Kind::Pod => slim::<core::Pod>(value, &[]),
        Kind::Node => slim::<core::Node>(value, &[]),
        Kind::Namespace => slim::<core::Namespace>(value, &[]),
    }
}

/// Deserialises and makes slim, with a note for each unknown field under one of `sections`.
fn slim<T: Slim + DeserializeOwned>(value: Value, sections: &[&str]) -> Result<(Object, Vec<Error>), String> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut on_unknown = |path: serde_ignored::Path<'_>| unknown.push(field_path(&path));
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let object = T::deserialize(serde_ignored::Deserializer::new(deserializer, &mut on_unknown));
    let object = object.map_err(|error| format!("{}: {error}; correct the field", track.path()))?;
    let converted: Converted = object.slim();
    let (object, mut notes) = converted.map_err(|error| error.to_string())?;
    unknown.retain(|path| sections.iter().any(|section| path.starts_with(section)));
    notes.extend(unknown.into_iter().map(|path| Problem::UnknownField.at(path)));
    Ok((object, notes))
}

/// The path as everybody else here writes it, `spec.ingress[0].from`.
fn field_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Map { parent: Path::Root, key } => key.clone(),
        Path::Map { parent, key } => format!("{}.{key}", field_path(parent)),
        Path::Seq { parent, index } => format!("{}[{index}]", field_path(parent)),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => field_path(parent),
    }
}
