//! The cluster and the configuration that both servers have.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control::FIRST;
use crate::feed::{create, create_of_cluster};

/// What the Corefile has besides rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Besides {
    /// Nothing: answers are as plugins make them.
    Nothing,
    /// Everything that kubeadm's Corefile has: answers are kept, too.
    Kubeadm,
}

/// kubeadm's Corefile, but for the lines that follow here: the cluster's zone has more options, and `forward` another
/// server.
const KUBEADM: &str = "    health {
       lameduck 5s
    }
    ready
    prometheus :9153
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance";

/// The Corefile, with more of the cluster's zone.
pub(crate) fn corefile(port: u16, upstream: SocketAddr, besides: Besides, more: &str) -> String {
    let besides = if besides == Besides::Kubeadm { KUBEADM } else { "" };
    format!(
        ".:{port} {{
    errors
{besides}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        pods insecure
        ttl 30
        fallthrough in-addr.arpa ip6.arpa
        {more}
    }}
    k8s_external out.example {{
        headless
        ttl 9
    }}
    transfer cluster.local out.example {{
        to *
    }}
    hosts {{
        192.0.2.50 fixed.test two.test
        2001:db8::50 fixed.test
        192.0.2.51 node.internal
        ttl 60
        fallthrough
    }}
    rewrite name exact old.test web.shop.svc.cluster.local
    rewrite name suffix .before.test .test answer auto
    rewrite name exact hidden.test blocked.test
    template IN A apps.test {{
        match ^(?P<host>[a-z]+)[.]apps[.]test[.]$
        answer \"{{{{ .Name }}}} 70 IN A 192.0.2.9\"
        fallthrough
    }}
    template IN AAAA noipv6.test {{
        rcode NOERROR
    }}
    template ANY ANY void.test {{
        rcode NXDOMAIN
        authority \"void.test. 60 IN SOA ns.void.test. host.void.test. 1 60 60 60 60\"
    }}
    acl blocked.test {{
        block
    }}
    acl filtered.test {{
        filter type AAAA
    }}
    acl dropped.test {{
        drop
    }}
    dns64
    forward . {upstream} {{
       max_concurrent 1000
    }}
}}
corp.test:{port} {{
    hosts {{
        192.0.2.60 web.corp.test
    }}
}}
"
    )
}

fn service(name: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

fn slice(name: &str, service: &str, ports: &Value, endpoints: &[(&str, &str, bool)]) -> Value {
    let v6 = endpoints.iter().any(|(address, ..)| address.contains(':'));
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, hostname, ready)| {
            let mut endpoint = json!({"addresses": [address], "conditions": {"ready": ready, "serving": ready}});
            if !hostname.is_empty() {
                endpoint["hostname"] = json!(hostname);
            }
            endpoint
        })
        .collect();
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": if v6 { "IPv6" } else { "IPv4" }, "ports": ports, "endpoints": endpoints,
    })
}

/// Makes the cluster's objects.
pub(crate) async fn fill(client: &Client) {
    for name in ["shop", "empty"] {
        create_of_cluster::<Namespace>(client, json!({"metadata": {"name": name}})).await;
    }
    let http = json!({"name": "http", "port": 80});
    let both = json!([http, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let headless = |ports: &Value| json!({"clusterIP": "None", "ports": ports});
    let alias = |name: &str| json!({"type": "ExternalName", "externalName": name});
    let db = json!([{"name": "db", "port": 5432}, {"name": "metrics", "port": 9100}]);
    let services = [
        ("web", json!({"clusterIP": "10.96.1.1", "ports": both})),
        (
            "dual",
            json!({"clusterIP": "10.96.1.2", "clusterIPs": ["10.96.1.2", "fd00:10:96::12"], "ipFamilyPolicy": "RequireDualStack", "ports": both}),
        ),
        ("six", json!({"clusterIP": "fd00:10:96::16", "ipFamilies": ["IPv6"], "ports": [http]})),
        ("bare", json!({"clusterIP": "10.96.1.3", "ports": [{"port": 80}]})),
        ("node", json!({"clusterIP": "10.96.1.4", "type": "NodePort", "ports": [http]})),
        ("outer", json!({"clusterIP": "10.96.1.5", "externalIPs": ["198.51.100.1"], "ports": both})),
        ("balanced", json!({"clusterIP": "10.96.1.6", "type": "LoadBalancer", "ports": both})),
        ("cloud", json!({"clusterIP": "10.96.1.7", "type": "LoadBalancer", "ports": [http]})),
        ("pets", headless(&db)),
        ("idle", headless(&db)),
        ("portless", json!({"clusterIP": "None"})),
        ("inside", alias("web.shop.svc.cluster.local")),
        ("outside", alias("v4.test")),
        ("dangling", alias("none.shop.svc.cluster.local")),
        ("gone", alias("gone.test")),
        ("last", json!({"clusterIP": "10.96.1.99", "ports": [http]})),
    ];
    let named = |name: &str, port: u16| json!([{"name": name, "port": port}]);
    let two = json!([{"name": "db", "port": 5432}, {"name": "metrics", "port": 9100}]);
    let slices = [
        slice("web-1", "web", &named("http", 8080), &[("10.244.1.1", "", true), ("10.244.1.2", "back", true)]),
        slice(
            "pets-4",
            "pets",
            &two,
            &[("10.244.2.1", "pets-0", true), ("10.244.2.2", "pets-1", true), ("10.244.2.3", "late", false)],
        ),
        slice("pets-6", "pets", &two, &[("fd00:10:244::21", "pets-0", true)]),
        slice("idle-1", "idle", &named("db", 5432), &[("10.244.3.1", "", false)]),
        slice("portless-1", "portless", &json!([]), &[("10.244.4.1", "", true)]),
    ];
    for slice in slices {
        create::<EndpointSlice>(client, "shop", slice).await;
    }
    let dns = json!({"clusterIP": "10.96.0.10", "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]});
    create_of_cluster_once(client, "kube-system").await;
    create::<Service>(client, "kube-system", service("kube-dns", &dns)).await;
    let own =
        slice("kube-dns-1", "kube-dns", &json!([{"name": "dns", "port": 53, "protocol": "UDP"}]), &[(FIRST, "", true)]);
    create::<EndpointSlice>(client, "kube-system", own).await;
    for (name, spec) in services {
        create::<Service>(client, "shop", service(name, &spec)).await;
        let ingress = match name {
            "balanced" => json!([{"ip": "203.0.113.1"}, {"ip": "2001:db8:1::1"}]),
            "cloud" => json!([{"hostname": "lb.test"}]),
            _ => continue,
        };
        let api: Api<Service> = Api::namespaced(client.clone(), "shop");
        let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
}

/// The API server makes some namespaces itself, in its own time.
async fn create_of_cluster_once(client: &Client, name: &str) {
    let api: Api<Namespace> = Api::all(client.clone());
    if api.get_opt(name).await.unwrap().is_none() {
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        // Whoever is first.
        drop(api.create(&kube::api::PostParams::default(), &object).await);
    }
}
