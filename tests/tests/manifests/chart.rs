//! The Helm chart gives what kustomize gives.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::kustomize::{documents, key};
use super::{helm, kustomize, read};

fn chart() -> PathBuf {
    fairlead_tree::path("manifests/helm/fairlead").unwrap()
}

fn overlay(name: &str) -> Vec<Value> {
    kustomize::render(&fairlead_tree::path("manifests/overlays").unwrap().join(name))
}

/// Objects by what they are, settings as what they say. What Helm alone has to know is left out.
fn compared(objects: Vec<Value>) -> BTreeMap<(String, String), Value> {
    let comparable = |mut object: Value| {
        if object["kind"] == "ConfigMap" {
            for (_, file) in object["data"].as_object_mut().unwrap() {
                let said: Value = serde_saphyr::from_str(file.as_str().unwrap()).unwrap();
                *file = if said.is_null() { json!({}) } else { said };
            }
        }
        if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
            annotations.remove("helm.sh/resource-policy");
        }
        (key(&object), object)
    };
    objects.into_iter().map(comparable).collect()
}

#[track_caller]
fn same(values: &Value, expected: Vec<Value>) {
    let (rendered, expected) = (compared(helm::render(&chart(), values)), compared(expected));
    assert_eq!(rendered.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{values}");
    for (key, object) in &expected {
        assert_eq!(&rendered[key], object, "{key:?} with {values}");
    }
}

#[test]
fn with_its_own_values_it_gives_the_objects_of_the_one_file() {
    same(&json!({}), documents(&read("install.yaml")));
}

#[test]
fn values_give_what_overlays_give() {
    same(&json!({"agent": {"enabled": false}}), overlay("dns-only"));
    same(&json!({"dns": {"service": {"trafficDistribution": ""}}}), overlay("pre-1.34"));
    same(&json!({"dns": {"service": {"clusterIP": "10.96.0.10"}}}), overlay("standalone"));
    for (name, kubernetes, file) in
        [("k3s", "/var/lib/rancher/k3s/agent", "kubelet.kubeconfig"), ("k0s", "/var/lib/k0s", "kubelet.conf")]
    {
        let paths = json!({"kubernetes": kubernetes, "kubeletKubeconfig": file});
        same(&json!({"agent": {"paths": paths}}), overlay(name));
    }
    let talos = json!({"agent": {"settings": {"apiServer": "https://localhost:7445"}}});
    same(&talos, overlay("talos"));
    let no_dns = json!({"enabled": false});
    same(&json!({"agent": {"settings": {"parts": "proxy"}}, "dns": no_dns}), overlay("proxy-only"));
    let policy = json!({"settings": {"parts": "policy"}, "healthzPort": 10246});
    same(&json!({"agent": policy, "dns": no_dns}), overlay("policy-only"));
}

#[test]
fn the_agent_is_privileged_if_asked_for() {
    let objects = compared(helm::render(&chart(), &json!({"agent": {"privileged": true}})));
    let agent = &objects[&("DaemonSet".to_owned(), "fairlead".to_owned())];
    let context = &agent["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!(context, &json!({"privileged": true, "readOnlyRootFilesystem": true}));
}

#[test]
fn a_kube_dns_of_somebody_else_is_left_alone_if_asked_for() {
    let objects = helm::render(&chart(), &json!({"dns": {"service": {"create": false}}}));
    assert!(objects.iter().all(|object| object["kind"] != "Service"));
    let objects = helm::render(&chart(), &json!({}));
    let service = objects.iter().find(|object| object["kind"] == "Service").unwrap();
    assert_eq!(service["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
}

/// Every value of values.yaml has its place in the schema, and the schema has no value that is not there.
#[test]
fn the_schema_has_the_values_and_no_others() {
    fn walk(values: &Value, schema: &Value, at: &str) {
        let kind = match values {
            Value::Object(_) => "object",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            _ => "string",
        };
        if let Some(allowed) = schema["enum"].as_array() {
            assert!(allowed.contains(values), "{at}: {values}");
            return;
        }
        assert_eq!(schema["type"], kind, "{at}");
        let Some(properties) = schema["properties"].as_object() else { return };
        assert_eq!(schema["additionalProperties"], false, "{at}");
        let known: Vec<_> = properties.keys().filter(|name| *name != "global").collect();
        assert_eq!(values.as_object().unwrap().keys().collect::<Vec<_>>(), known, "{at}");
        for name in known {
            walk(&values[name], &properties[name], &format!("{at}.{name}"));
        }
    }
    let values: Value = serde_saphyr::from_str(&read("helm/fairlead/values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("helm/fairlead/values.schema.json")).unwrap();
    walk(&values, &schema, "values");
}
