//! The manifests that people write, sorted by kind.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, PodTemplateSpec, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What the manifests ask for.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    /// Namespaces that have a manifest. One that is there twice has the labels and annotations of both.
    pub(super) namespaces: Vec<Namespace>,
    /// What makes pods.
    pub(super) workloads: Vec<Workload>,
    /// Services.
    pub(super) services: Vec<Service>,
    /// Policies.
    pub(super) policies: Vec<NetworkPolicy>,
}

/// Something that makes pods.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) template: PodTemplateSpec,
    pub(super) pods: Pods,
}

/// How many pods a workload makes, and how they are named.
#[derive(Debug, Clone)]
pub(super) enum Pods {
    /// So many: `name-1` and on, on any nodes.
    Replicas(i32),
    /// So many: `name-0` and on, each with its name as its host name in the domain of a service.
    Ordered(i32, Option<String>),
    /// One for each node: `name-node-1`.
    EveryNode,
}

impl Manifests {
    /// Reads every manifest below a directory, in the order of the paths. What names no namespace gets `namespace`.
    ///
    /// # Errors
    /// When a file can't be read or isn't what it says.
    pub fn read(&mut self, dir: &Path, namespace: &str) -> Result<()> {
        let files = files(dir).with_context(|| format!("can't list {}", dir.display()))?;
        for file in files {
            let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
            self.add(&text, namespace).with_context(|| format!("in {}", file.display()))?;
        }
        Ok(())
    }

    /// Takes the manifests of a text. What names no namespace gets `namespace`; unknown kinds are left out.
    ///
    /// # Errors
    /// When a document isn't what it says.
    pub fn add(&mut self, text: &str, namespace: &str) -> Result<()> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
        documents.into_iter().try_for_each(|document| self.add_value(document, namespace))
    }

    fn add_value(&mut self, mut document: Value, namespace: &str) -> Result<()> {
        match document.get("kind").and_then(Value::as_str) {
            Some("List") => {
                let items = document.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take);
                return items.unwrap_or_default().into_iter().try_for_each(|item| self.add_value(item, namespace));
            }
            Some("Namespace") => self.add_namespace(typed(document)?),
            Some("Service") => {
                let mut service: Service = typed(document)?;
                adopt(&mut service.metadata, namespace);
                self.services.push(service);
            }
            Some("NetworkPolicy") => {
                let mut policy: NetworkPolicy = typed(document)?;
                adopt(&mut policy.metadata, namespace);
                self.policies.push(policy);
            }
            Some("Deployment") => {
                let deployment: Deployment = typed(document)?;
                let spec = deployment.spec.context("a Deployment without spec")?;
                let pods = Pods::Replicas(spec.replicas.unwrap_or(1));
                self.workloads.push(workload(deployment.metadata, namespace, spec.template, pods)?);
            }
            Some("StatefulSet") => {
                let set: StatefulSet = typed(document)?;
                let spec = set.spec.context("a StatefulSet without spec")?;
                let pods = Pods::Ordered(spec.replicas.unwrap_or(1), spec.service_name);
                self.workloads.push(workload(set.metadata, namespace, spec.template, pods)?);
            }
            Some("DaemonSet") => {
                let set: DaemonSet = typed(document)?;
                let spec = set.spec.context("a DaemonSet without spec")?;
                self.workloads.push(workload(set.metadata, namespace, spec.template, Pods::EveryNode)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn add_namespace(&mut self, namespace: Namespace) {
        let known = self.namespaces.iter_mut().find(|known| known.metadata.name == namespace.metadata.name);
        let Some(known) = known else { return self.namespaces.push(namespace) };
        let merge = |into: &mut Option<std::collections::BTreeMap<String, String>>, from| {
            if let Some(from) = from {
                into.get_or_insert_default().extend(from);
            }
        };
        merge(&mut known.metadata.labels, namespace.metadata.labels);
        merge(&mut known.metadata.annotations, namespace.metadata.annotations);
    }
}

fn typed<T: DeserializeOwned>(document: Value) -> Result<T> {
    let name = document.pointer("/metadata/name").cloned().unwrap_or_default();
    serde_json::from_value(document).with_context(|| format!("object {name}"))
}

fn workload(metadata: ObjectMeta, namespace: &str, template: PodTemplateSpec, pods: Pods) -> Result<Workload> {
    let name = metadata.name.context("a workload without name")?;
    Ok(Workload { namespace: metadata.namespace.unwrap_or_else(|| namespace.to_owned()), name, template, pods })
}

fn adopt(metadata: &mut ObjectMeta, namespace: &str) {
    metadata.namespace.get_or_insert_with(|| namespace.to_owned());
}

/// The manifests below a directory, sorted.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
