//! Lists, changes, lists again, selectors, rights.

use fairlead_objects::kubernetes::Interest;
use fairlead_objects::{Kind, Object, ObjectKey};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control::{ADMIN, AGENT, Control, FIRST, NODE, SECOND};
use crate::feed::{Feed, create, create_of_cluster, delete, patch, wait};

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
}

async fn some_objects(client: &Client) {
    create_of_cluster::<Namespace>(client, json!({"metadata": {"name": "shop"}})).await;
    for name in ["cart", "front"] {
        create::<Service>(client, "shop", service(name)).await;
    }
    let slice = json!({
        "metadata": {"name": "cart-1", "labels": {"kubernetes.io/service-name": "cart"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 8080}],
    });
    create::<EndpointSlice>(client, "shop", slice).await;
    let policy = json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {}}});
    create::<NetworkPolicy>(client, "shop", policy).await;
}

/// First lists, changes, and after a time without the server what happened meanwhile.
async fn lists_and_changes(control: &mut Control, flags: &[&str]) {
    control.serve(FIRST, &[FIRST], flags).await;
    let admin = control.cluster(ADMIN, FIRST).client().await;
    some_objects(&admin).await;

    let cluster = control.cluster(ADMIN, FIRST);
    let mut feed = Feed::start(cluster.clone(), Interest::Node(NODE.to_owned()));
    feed.until("every kind is listed", |feed| feed.synced.len() == Kind::ALL.len()).await;
    for (kind, name) in [
        (Kind::Namespace, "shop"),
        (Kind::Service, "shop/cart"),
        (Kind::Service, "shop/front"),
        (Kind::EndpointSlice, "shop/cart-1"),
        (Kind::NetworkPolicy, "shop/deny"),
    ] {
        assert!(feed.has(kind, name), "{name} was there before its kind synced");
    }

    create::<Service>(&admin, "shop", service("late")).await;
    delete::<Service>(&admin, "shop", "front").await;
    feed.until("changes arrive", |f| f.has(Kind::Service, "shop/late") && !f.has(Kind::Service, "shop/front")).await;

    // The server dies. Another one, that nobody has told the agent of, goes on changing things; the first one comes back
    // and no longer has what a watch would go on with: 410, a list, and what is missing in it is deleted.
    control.kill(FIRST);
    control.serve(SECOND, &[SECOND], flags).await;
    let elsewhere = control.cluster(ADMIN, SECOND).client().await;
    delete::<Service>(&elsewhere, "shop", "late").await;
    create::<Service>(&elsewhere, "shop", service("later")).await;
    let slice = json!({"endpoints": [{"addresses": ["10.0.0.2"]}]});
    patch::<EndpointSlice>(&elsewhere, "shop", "cart-1", slice).await;
    assert!(feed.has(Kind::Service, "shop/late"), "what was known stays while no server answers");
    let said = || cluster.troubles().iter().any(|text| text.contains("no API server has answered"));
    wait("that nobody answers is said", said).await;
    let counts = cluster.requests();
    let of = |status: &str| counts.answered.iter().filter(|((method, _, s), _)| method == "GET" && s == status).count();
    assert!(of("200") > 0 && of("<error>") > 0, "requests are counted by what became of them: {counts:?}");
    control.serve(FIRST, &[FIRST], flags).await;
    feed.until("what happened meanwhile arrives", |feed| {
        let key = (Kind::EndpointSlice, ObjectKey::new("shop", "cart-1"));
        let Some(Object::EndpointSlice(slice)) = feed.objects.get(&key) else { return false };
        feed.has(Kind::Service, "shop/later")
            && !feed.has(Kind::Service, "shop/late")
            && slice.endpoints[0].addresses[0].to_string() == "10.0.0.2"
    })
    .await;
    wait("nothing is wrong any more", || cluster.troubles().is_empty()).await;
}

#[test]
fn lists_changes_and_lists_again() {
    let mut control = Control::new("streaming");
    run(async move { lists_and_changes(&mut control, &[]).await });
}

/// The pods of a large cluster are no business of each node, until a policy asks who they are.
#[test]
fn pods_of_other_nodes_are_asked_for_by_the_first_policy() {
    let mut control = Control::new("pods");
    run(async move {
        control.serve(FIRST, &[FIRST], &[]).await;
        let admin = control.cluster(ADMIN, FIRST).client().await;
        create_of_cluster::<Namespace>(&admin, json!({"metadata": {"name": "shop"}})).await;
        let pod = |name: &str, node: &str| {
            let containers = json!([{"name": "c", "image": "i"}]);
            let spec = json!({"nodeName": node, "automountServiceAccountToken": false, "containers": containers});
            json!({"metadata": {"name": name}, "spec": spec})
        };
        create::<Pod>(&admin, "shop", pod("near", NODE)).await;
        create::<Pod>(&admin, "shop", pod("far", "another")).await;
        let mut feed = Feed::start(control.cluster(ADMIN, FIRST), Interest::Node(NODE.to_owned()));
        feed.until("every kind is listed", |feed| feed.synced.len() == Kind::ALL.len()).await;
        assert!(feed.has(Kind::Pod, "shop/near") && !feed.has(Kind::Pod, "shop/far"));

        let policy = json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {}}});
        create::<NetworkPolicy>(&admin, "shop", policy).await;
        feed.until("the policy arrives", |feed| feed.has(Kind::NetworkPolicy, "shop/deny")).await;
        assert!(feed.has(Kind::Pod, "shop/far"), "pods that a policy may name are told before it");
        assert!(feed.has(Kind::Pod, "shop/near"));
        create::<Pod>(&admin, "shop", pod("farther", "another")).await;
        feed.until("others are followed from now on", |feed| feed.has(Kind::Pod, "shop/farther")).await;

        let mut later = Feed::start(control.cluster(ADMIN, FIRST), Interest::Node(NODE.to_owned()));
        later.until("every kind is listed", |feed| feed.synced.len() == Kind::ALL.len()).await;
        assert!(later.has(Kind::NetworkPolicy, "shop/deny") && later.has(Kind::Pod, "shop/far"));
    });
}

#[test]
fn servers_without_streaming_lists() {
    let mut control = Control::new("paged");
    run(async move { lists_and_changes(&mut control, &["--feature-gates=WatchList=false"]).await });
}

#[test]
fn s15_services_of_another_proxy_are_known_as_such_while_they_are() {
    let mut control = Control::new("selectors");
    run(async move {
        control.serve(FIRST, &[FIRST], &[]).await;
        let admin = control.cluster(ADMIN, FIRST).client().await;
        some_objects(&admin).await;
        let mut agent = Feed::start(control.cluster(ADMIN, FIRST), Interest::Node(NODE.to_owned()));
        let mut names = Feed::start(control.cluster(ADMIN, FIRST), Interest::Names);
        agent.until("the agent's lists", |feed| feed.synced.len() == Kind::ALL.len()).await;
        names.until("the names' lists", |feed| feed.synced.len() == 3).await;
        assert!(!names.objects.keys().any(|(kind, _)| *kind == Kind::Node || *kind == Kind::Pod));

        let label = |value: Value| json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": value}}});
        patch::<Service>(&admin, "shop", "cart", label("other".into())).await;
        let is_anothers = |feed: &Feed| {
            let key = (Kind::Service, ObjectKey::new("shop", "cart"));
            matches!(feed.objects.get(&key), Some(Object::Service(service)) if service.proxy_name.is_some())
        };
        // Its cluster IP is nobody else's.
        agent.until("it is another proxy's", is_anothers).await;
        names.until("names have it", is_anothers).await;
        patch::<Service>(&admin, "shop", "cart", label(Value::Null)).await;
        agent.until("it is ours again", |feed| !is_anothers(feed) && feed.has(Kind::Service, "shop/cart")).await;

        let label = |value: Value| json!({"metadata": {"labels": {"service.kubernetes.io/headless": value}}});
        patch::<EndpointSlice>(&admin, "shop", "cart-1", label("".into())).await;
        agent.until("headless endpoints", |feed| !feed.has(Kind::EndpointSlice, "shop/cart-1")).await;
        assert!(names.has(Kind::EndpointSlice, "shop/cart-1"));
    });
}

#[test]
fn what_is_forbidden_is_said_and_holds_up_nothing_else() {
    let mut control = Control::new("rbac");
    run(async move {
        control.serve(FIRST, &[FIRST], &[]).await;
        let admin = control.cluster(ADMIN, FIRST).client().await;
        let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
        let mut rules = vec![
            rule("", &["nodes", "namespaces", "services"]),
            rule("discovery.k8s.io", &["endpointslices"]),
            rule("networking.k8s.io", &["networkpolicies"]),
        ];
        let role = json!({"metadata": {"name": "agent"}, "rules": rules});
        create_of_cluster::<ClusterRole>(&admin, role).await;
        let binding = json!({
            "metadata": {"name": "agent"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agent"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AGENT}],
        });
        create_of_cluster::<ClusterRoleBinding>(&admin, binding).await;

        let cluster = control.cluster(AGENT, FIRST);
        let mut feed = Feed::start(cluster.clone(), Interest::Node(NODE.to_owned()));
        feed.until("all but pods are listed", |feed| feed.synced.len() == Kind::ALL.len() - 1).await;
        assert!(!feed.synced.contains(&Kind::Pod));
        wait("that pods are forbidden is said", || !cluster.troubles().is_empty()).await;
        let troubles = cluster.troubles();
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        for part in ["pods", "forbid", r#"apiGroups: [""], resources: ["pods"], verbs: ["list", "watch"]"#] {
            assert!(troubles[0].contains(part), "{part} is not in {troubles:?}");
        }
        rules.push(rule("", &["pods"]));
        let roles: Api<ClusterRole> = Api::all(admin.clone());
        roles.patch("agent", &PatchParams::default(), &Patch::Merge(json!({"rules": rules}))).await.unwrap();
        feed.until("pods are listed", |feed| feed.synced.contains(&Kind::Pod)).await;
        assert_eq!(cluster.troubles(), Vec::<String>::new());
    });
}
