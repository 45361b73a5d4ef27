//! A kind whose definition is an object itself: it is absent, comes in one version and then in another, and goes.

use fairlead_objects::Kind;
use fairlead_objects::kubernetes::Interest;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::control::{ADMIN, AGENT, Control, FIRST, NODE};
use crate::feed::{Feed, create_of_cluster};

const CRD: &str = "clusternetworkpolicies.policy.networking.k8s.io";

/// Upstream's definition, of which one version is served.
fn definition(served: &str) -> Value {
    definition_of("cluster-network-policy", served)
}

/// That of a component of the manifests.
pub(crate) fn definition_of(component: &str, served: &str) -> Value {
    let path = fairlead_tree::path(format!("manifests/components/{component}/crd.yaml")).unwrap();
    let mut crd: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for version in crd["spec"]["versions"].as_array_mut().unwrap() {
        version["served"] = json!(version["name"] == served);
    }
    crd
}

fn is_there(feed: &Feed, name: &str) -> bool {
    feed.has(Kind::ClusterNetworkPolicy, name)
}

async fn make(client: &Client, version: &str, name: &str) {
    let peer = json!({"namespaces": {}});
    let rule = json!({"action": "Deny", "from": [peer]});
    let spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": [rule]});
    let _uid = make_with(client, version, name, &spec).await;
}

/// Makes a policy, once the version is served, and gives its uid.
pub(crate) async fn make_with(client: &Client, version: &str, name: &str, spec: &Value) -> Option<String> {
    let kind = GroupVersionKind::gvk("policy.networking.k8s.io", version, "ClusterNetworkPolicy");
    let resource = ApiResource::from_gvk_with_plural(&kind, "clusternetworkpolicies");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let policy = json!({
        "apiVersion": format!("policy.networking.k8s.io/{version}"), "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    });
    let policy: DynamicObject = serde_json::from_value(policy).unwrap();
    // The server takes a moment to serve what is defined.
    let made = async {
        loop {
            match api.create(&PostParams::default(), &policy).await {
                Ok(made) => return made.metadata.uid,
                Err(error) => assert!(matches!(&error, kube::Error::Api(status) if status.code == 404), "{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), made).await.expect("the version is served")
}

/// What every account may do but read discovery.
async fn forbid_discovery(admin: &Client) {
    let bindings: Api<ClusterRoleBinding> = Api::all(admin.clone());
    bindings.delete("system:discovery", &DeleteParams::default()).await.unwrap();
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    let rules = [
        rule("", &["nodes", "namespaces", "services", "pods"]),
        rule("discovery.k8s.io", &["endpointslices"]),
        rule("networking.k8s.io", &["networkpolicies"]),
        rule("policy.networking.k8s.io", &["clusternetworkpolicies"]),
    ];
    create_of_cluster::<ClusterRole>(admin, json!({"metadata": {"name": "agent"}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": "agent"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agent"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AGENT}],
    });
    create_of_cluster::<ClusterRoleBinding>(admin, binding).await;
}

/// Whether the server answers the agent's account for discovery.
async fn may_discover(client: &Client) -> bool {
    let request = http::Request::get("/apis/policy.networking.k8s.io").body(Vec::new()).unwrap();
    !matches!(client.request_text(request).await, Err(kube::Error::Api(status)) if status.code == 403)
}

#[test]
fn p66_where_discovery_is_forbidden_a_list_says_what_is_served_and_nothing_is_held_up() {
    let mut control = Control::new("discovery");
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
        control.serve(FIRST, &[FIRST], &[]).await;
        let admin = control.cluster(ADMIN, FIRST).client().await;
        forbid_discovery(&admin).await;
        let cluster = control.cluster(AGENT, FIRST);
        let agent = cluster.client().await;
        let forbidden = async {
            while may_discover(&agent).await {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), forbidden).await.expect("discovery is forbidden");
        let mut feed = Feed::start(cluster.clone(), Interest::Node(NODE.to_owned()));
        feed.until("every kind is listed, also that which is not served", |feed| feed.synced.len() == Kind::ALL.len())
            .await;
        create_of_cluster::<CustomResourceDefinition>(&admin, definition("v1beta1")).await;
        make(&admin, "v1beta1", "one").await;
        feed.until("the definition is noticed", |feed| is_there(feed, "one")).await;
        assert_eq!(cluster.troubles(), Vec::<String>::new());
    });
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
