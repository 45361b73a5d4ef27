//! All objects of a cluster.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::{Manifests, Topology, pods, services, slices};

/// The label that every namespace has (KEP-2161).
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// The objects that a control plane makes of manifests.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The namespaces, of their own manifests and of everything in them.
    pub namespaces: Vec<Namespace>,
    /// The services with addresses.
    pub services: Vec<Service>,
    /// Their endpoints.
    pub slices: Vec<EndpointSlice>,
    /// The pods, running.
    pub pods: Vec<Pod>,
    /// The policies as they were written.
    pub policies: Vec<NetworkPolicy>,
}

impl Cluster {
    /// Makes the objects.
    ///
    /// # Errors
    /// When a manifest lacks what every object of its kind has, or addresses run out.
    pub fn new(manifests: &Manifests, topology: &Topology) -> Result<Self> {
        let pods = pods::pods(&manifests.workloads, topology)?;
        let services = services::services(&manifests.services)?;
        let slices = slices::slices(&services, &pods, topology)?;
        let mut cluster = Self {
            nodes: topology.nodes.iter().map(super::Place::node).collect(),
            namespaces: Vec::new(),
            services,
            slices,
            pods,
            policies: manifests.policies.clone(),
        };
        cluster.namespaces = cluster.namespaces(&manifests.namespaces);
        Ok(cluster)
    }

    /// The committed cluster: every manifest of the tests' data, on the nodes given.
    ///
    /// # Errors
    /// When the manifests can't be read.
    pub fn of_test_data(topology: &Topology) -> Result<Self> {
        let data = fairlead_tree::path("tests/data/manifests")?;
        let mut manifests = Manifests::default();
        for set in ["online-boutique", "sock-shop", "extra"] {
            manifests.read(&data.join(set), set)?;
        }
        Self::new(&manifests, topology)
    }

    fn namespaces(&self, written: &[Namespace]) -> Vec<Namespace> {
        let used = self.metadata().filter_map(|metadata| metadata.namespace.clone());
        let names: BTreeSet<String> = used.chain(written.iter().filter_map(|ns| ns.metadata.name.clone())).collect();
        let complete = |name: String| {
            let known = written.iter().find(|ns| ns.metadata.name.as_ref() == Some(&name));
            let mut namespace = known.cloned().unwrap_or_default();
            namespace.metadata.labels.get_or_insert_default().insert(METADATA_NAME.to_owned(), name.clone());
            namespace.metadata.name = Some(name);
            namespace
        };
        names.into_iter().map(complete).collect()
    }

    fn metadata(&self) -> impl Iterator<Item = &ObjectMeta> {
        let services = self.services.iter().map(|object| &object.metadata);
        let slices = self.slices.iter().map(|object| &object.metadata);
        let pods = self.pods.iter().map(|object| &object.metadata);
        let policies = self.policies.iter().map(|object| &object.metadata);
        services.chain(slices).chain(pods).chain(policies)
    }

    /// The objects as files for `--objects`: one for the nodes, one for the namespaces, one for what is in each namespace.
    ///
    /// # Errors
    /// When an object can't be written.
    pub fn files(&self) -> Result<BTreeMap<String, String>> {
        let mut files = BTreeMap::new();
        files.insert("nodes.yaml".to_owned(), documents(&self.nodes)?);
        files.insert("namespaces.yaml".to_owned(), documents(&self.namespaces)?);
        for namespace in &self.namespaces {
            let name = namespace.metadata.name.as_deref().context("a Namespace without name")?;
            let is_in = |metadata: &ObjectMeta| metadata.namespace.as_deref() == Some(name);
            let mut text = documents(self.services.iter().filter(|object| is_in(&object.metadata)))?;
            text += &documents(self.slices.iter().filter(|object| is_in(&object.metadata)))?;
            text += &documents(self.policies.iter().filter(|object| is_in(&object.metadata)))?;
            text += &documents(self.pods.iter().filter(|object| is_in(&object.metadata)))?;
            files.insert(format!("in-{name}.yaml"), text);
        }
        Ok(files)
    }
}

fn documents<'a, T: Serialize + 'a>(objects: impl IntoIterator<Item = &'a T>) -> Result<String> {
    let mut text = String::new();
    for object in objects {
        text += "---\n";
        text += &serde_saphyr::to_string(object)?;
    }
    Ok(text)
}
