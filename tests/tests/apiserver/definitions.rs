//! A kind whose definition is an object itself: it is absent, comes in one version and then in another, and goes.

use fairlead_objects::Kind;
use fairlead_objects::kubernetes::Interest;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::control::{ADMIN, Control, FIRST, NODE};
use crate::feed::{Feed, create_of_cluster};

const CRD: &str = "clusternetworkpolicies.policy.networking.k8s.io";

/// Upstream's definition, of which one version is served.
fn definition(served: &str) -> Value {
    let path = fairlead_tree::path("manifests/components/cluster-network-policy/crd.yaml").unwrap();
    let mut crd: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for version in crd["spec"]["versions"].as_array_mut().unwrap() {
        version["served"] = json!(version["name"] == served);
    }
    crd
}

async fn make(client: &Client, version: &str, name: &str) {
    let kind = GroupVersionKind::gvk("policy.networking.k8s.io", version, "ClusterNetworkPolicy");
    let resource = ApiResource::from_gvk_with_plural(&kind, "clusternetworkpolicies");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let peer = json!({"namespaces": {}});
    let rule = json!({"action": "Deny", "from": [peer]});
    let policy = json!({
        "apiVersion": format!("policy.networking.k8s.io/{version}"), "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": [rule]},
    });
    let policy: DynamicObject = serde_json::from_value(policy).unwrap();
    // The server takes a moment to serve what is defined.
    let made = async {
        while let Err(error) = api.create(&PostParams::default(), &policy).await {
            assert!(matches!(&error, kube::Error::Api(status) if status.code == 404), "{error}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), made).await.expect("the version is served");
}

#[test]
fn p66_the_definition_of_cluster_policies_comes_changes_its_version_and_goes() {
    let mut control = Control::new("definitions");
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
        control.serve(FIRST, &[FIRST], &[]).await;
        let admin = control.cluster(ADMIN, FIRST).client().await;
        let cluster = control.cluster(ADMIN, FIRST);
        let mut feed = Feed::start(cluster.clone(), Interest::Node(NODE.to_owned()));
        feed.until("every kind is listed, also that which is not served", |feed| feed.synced.len() == Kind::ALL.len())
            .await;
        assert_eq!(cluster.troubles(), Vec::<String>::new());

        create_of_cluster::<CustomResourceDefinition>(&admin, definition("v1alpha2")).await;
        make(&admin, "v1alpha2", "old").await;
        let is_there = |feed: &Feed, name| feed.has(Kind::ClusterNetworkPolicy, name);
        feed.until("the older version is watched", |feed| is_there(feed, "old")).await;

        let definitions: Api<CustomResourceDefinition> = Api::all(admin.clone());
        let versions = json!({"spec": {"versions": definition("v1beta1")["spec"]["versions"]}});
        definitions.patch(CRD, &PatchParams::default(), &Patch::Merge(versions)).await.unwrap();
        make(&admin, "v1beta1", "new").await;
        // It is the same policy in another version: at no moment is it gone.
        feed.until("the newer version is watched", |feed| {
            assert!(is_there(feed, "old"), "a policy is out of force while its version changes");
            is_there(feed, "new")
        })
        .await;

        definitions.delete(CRD, &DeleteParams::default()).await.unwrap();
        feed.until("the policies are gone", |feed| !is_there(feed, "old") && !is_there(feed, "new")).await;
        // A watch that is not there is not one that says nothing, for which an agent would not be ready in the end.
        let forgotten = async {
            while cluster.watches().iter().any(|watch| watch.kind == Kind::ClusterNetworkPolicy) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), forgotten).await.expect("the watch is forgotten");
        assert_eq!(cluster.troubles(), Vec::<String>::new());
    });
}
