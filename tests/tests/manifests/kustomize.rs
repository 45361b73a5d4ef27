//! As much of kustomize as the overlays use: resources, components, strategic merges with `$patch: delete`, JSON patches.
//! What else stands in a kustomization is an error.

use std::fs;
use std::path::Path;

use fairlead_tree::kustomize::{Kustomization, Patch, Target};
use serde_json::{Map, Value};

/// The objects that `kubectl kustomize DIRECTORY` gives, in any order.
pub(crate) fn render(directory: &Path) -> Vec<Value> {
    let mut objects = Vec::new();
    apply(directory, &mut objects);
    objects
}

/// What a kustomization or a component makes of objects.
pub(crate) fn apply(directory: &Path, objects: &mut Vec<Value>) {
    let file = directory.join("kustomization.yaml");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let shown = file.display();
    let kustomization = Kustomization::read(&text).unwrap_or_else(|error| panic!("{shown}: {error}"));
    for resource in &kustomization.resources {
        let path = directory.join(resource);
        if path.is_dir() {
            objects.extend(render(&path));
        } else {
            objects.extend(documents(&fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))));
        }
    }
    for component in &kustomization.components {
        apply(&directory.join(component), objects);
    }
    for Patch { target, patch } in &kustomization.patches {
        let patch: Value = serde_saphyr::from_str(patch).unwrap_or_else(|error| panic!("{shown}: {error}"));
        match (patch, target) {
            (Value::Array(operations), Some(target)) => {
                let mut met = 0;
                for object in objects.iter_mut().filter(|object| is_target(target, object)) {
                    met += 1;
                    operations.iter().for_each(|operation| json_patch(object, operation));
                }
                assert!(met > 0, "{shown}: a patch has no target");
            }
            (merge @ Value::Object(_), None) => {
                let at = objects.iter().position(|object| key(object) == key(&merge));
                let at = at.unwrap_or_else(|| panic!("{shown}: no {:?} to patch", key(&merge)));
                if merge["$patch"] == "delete" {
                    objects.remove(at);
                } else {
                    strategic(&mut objects[at], &merge);
                }
            }
            _ => panic!("{shown}: neither a JSON patch with a target nor a merge without"),
        }
    }
}

fn is_target(target: &Target, object: &Value) -> bool {
    object["kind"] == target.kind.as_str()
        && target.name.as_ref().is_none_or(|name| object["metadata"]["name"] == name.as_str())
}

/// The objects of a text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    all.into_iter().filter(|document| !document.is_null()).collect()
}

/// What tells an object from others.
pub(crate) fn key(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["kind"]), text(&object["metadata"]["name"]))
}

fn strategic(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    strategic(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        // Lists of things that have names, or mount paths, are merged by them; kustomize puts new ones in front.
        (Value::Array(into), Value::Array(patch)) if patch.iter().all(Value::is_object) => {
            for item in patch {
                let by = if item["mountPath"].is_string() { "mountPath" } else { "name" };
                match into.iter_mut().find(|old| old[by] == item[by]) {
                    Some(old) => strategic(old, item),
                    None => into.insert(0, item.clone()),
                }
            }
        }
        (into @ Value::Null, Value::Object(patch)) => {
            *into = Value::Object(Map::new());
            strategic(into, &Value::Object(patch.clone()));
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn json_patch(object: &mut Value, operation: &Value) {
    let path = operation["path"].as_str().unwrap();
    let (parent, last) = path.rsplit_once('/').unwrap();
    let last = last.replace("~1", "/");
    let (value, shown) = (&operation["value"], format!("{operation}"));
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("nothing is at the path of {shown}"));
    match (operation["op"].as_str().unwrap(), parent) {
        ("test", parent) => assert_eq!(parent.pointer(&format!("/{last}")), Some(value), "{shown}"),
        ("add", Value::Object(parent)) => drop(parent.insert(last, value.clone())),
        ("add", Value::Array(parent)) => parent.insert(last.parse().unwrap(), value.clone()),
        ("replace", Value::Object(parent)) => assert!(parent.insert(last, value.clone()).is_some(), "{shown}"),
        ("remove", Value::Array(parent)) => drop(parent.remove(last.parse().unwrap())),
        ("remove", Value::Object(parent)) => assert!(parent.remove(&last).is_some(), "{shown}"),
        other => panic!("{other:?} is not known: {shown}"),
    }
}
