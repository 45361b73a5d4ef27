//! The cluster, and what there is for which name.

use std::fmt::Write as _;

/// How many endpoints are too many for a datagram.
const MANY: usize = 250;

/// A question and its answer.
pub(crate) struct Case {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    /// What there is, sorted.
    pub(crate) wanted: Vec<String>,
    /// Only the search list makes it a name.
    pub(crate) is_short: bool,
}

/// The cluster's objects.
pub(crate) fn manifests() -> String {
    let service = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{namespace: shop, name: {name}}}, spec: {{{spec}}}}}\n---\n"
        )
    };
    let slice = |name: &str, service: &str, family: &str, endpoints: &str| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: shop, name: {name}, \
             labels: {{kubernetes.io/service-name: {service}}}}}, addressType: {family}, ports: [{{name: db, port: 5432}}], \
             endpoints: [{endpoints}]}}\n---\n"
        )
    };
    let endpoint = |address: &str, hostname: &str| {
        let hostname = if hostname.is_empty() { String::new() } else { format!("hostname: {hostname}, ") };
        format!("{{addresses: ['{address}'], {hostname}conditions: {{ready: true}}}}, ")
    };
    let mut all = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n".to_owned();
    all += &service("web", "clusterIP: 10.96.1.1, clusterIPs: [10.96.1.1], ports: [{name: http, port: 80}]");
    all += &service("dual", "clusterIP: 10.96.1.2, clusterIPs: [10.96.1.2, 'fd00:10:96::12'], ports: [{port: 80}]");
    all += &service("six", "clusterIP: 'fd00:10:96::16', clusterIPs: ['fd00:10:96::16'], ports: [{port: 80}]");
    for headless in ["pets", "many"] {
        all += &service(headless, "clusterIP: None, ports: [{name: db, port: 5432}]");
    }
    for (name, target) in [("inside", "web.shop.svc.cluster.local"), ("outside", "v4.test"), ("gone", "gone.test")] {
        all += &service(name, &format!("type: ExternalName, externalName: {target}"));
    }
    all += &slice("pets-4", "pets", "IPv4", &(endpoint("10.244.2.1", "pets-0") + &endpoint("10.244.2.2", "pets-1")));
    all += &slice("pets-6", "pets", "IPv6", &endpoint("fd00:10:244::21", "pets-0"));
    let many = (1..=MANY).fold(String::new(), |mut all, last| {
        let _ = write!(all, "{}", endpoint(&format!("10.244.9.{last}"), ""));
        all
    });
    all + &slice("many-1", "many", "IPv4", &many)
}

/// Everything that is asked.
pub(crate) fn all() -> Vec<Case> {
    let case = |kind, name: &str, wanted: &[&str]| {
        let mut wanted: Vec<String> = wanted.iter().map(|one| (*one).to_owned()).collect();
        wanted.sort();
        Case { kind, name: name.to_owned(), wanted, is_short: false }
    };
    let short = |kind, name, wanted: &[&str]| Case { is_short: true, ..case(kind, name, wanted) };
    let numbered = |prefix: &str, count: usize| -> Vec<String> {
        let mut all: Vec<String> = (1..=count).map(|last| format!("{prefix}{last}")).collect();
        all.sort();
        all
    };
    let long = format!("{0}.{0}.{0}.{1}.test", "a".repeat(63), "b".repeat(55));
    vec![
        case("A", "web.shop.svc.cluster.local", &["10.96.1.1"]),
        case("A", "WEB.Shop.svc.Cluster.LOCAL", &["10.96.1.1"]),
        case("AAAA", "web.shop.svc.cluster.local", &[]),
        case("A", "dual.shop.svc.cluster.local", &["10.96.1.2"]),
        case("AAAA", "dual.shop.svc.cluster.local", &["fd00:10:96::12"]),
        case("A", "six.shop.svc.cluster.local", &[]),
        case("AAAA", "six.shop.svc.cluster.local", &["fd00:10:96::16"]),
        case("A", "pets.shop.svc.cluster.local", &["10.244.2.1", "10.244.2.2"]),
        case("A", "pets-0.pets.shop.svc.cluster.local", &["10.244.2.1"]),
        case("AAAA", "pets-0.pets.shop.svc.cluster.local", &["fd00:10:244::21"]),
        Case { wanted: numbered("10.244.9.", MANY), ..case("A", "many.shop.svc.cluster.local", &[]) },
        case("A", "inside.shop.svc.cluster.local", &["10.96.1.1"]),
        case("A", "outside.shop.svc.cluster.local", &["192.0.2.33"]),
        case("AAAA", "outside.shop.svc.cluster.local", &[]),
        case("A", "gone.shop.svc.cluster.local", &[]),
        case("A", "nobody.shop.svc.cluster.local", &[]),
        case("A", "10-244-1-1.shop.pod.cluster.local", &["10.244.1.1"]),
        short("A", "web", &["10.96.1.1"]),
        short("A", "web.shop", &["10.96.1.1"]),
        short("AAAA", "dual.shop.svc", &["fd00:10:96::12"]),
        case("A", "v4.test", &["192.0.2.33"]),
        case("A", "v4.test.", &["192.0.2.33"]),
        case("AAAA", "v4.test", &[]),
        case("AAAA", "v6.test", &["2001:db8::1"]),
        case("A", "alias.test", &["192.0.2.33"]),
        Case { wanted: numbered("192.0.2.", 100), ..case("A", "many.test", &[]) },
        case("A", "gone.test", &[]),
        case("A", "failed.test", &[]),
        case("A", &long, &[]),
        case("PTR", "10.96.1.1", &["web.shop.svc.cluster.local"]),
        case("PTR", "fd00:10:96::12", &["dual.shop.svc.cluster.local"]),
        case("PTR", "10.244.2.2", &["pets-1.pets.shop.svc.cluster.local"]),
        case("PTR", "10.96.9.9", &[]),
        case("SRV", "_http._tcp.web.shop.svc.cluster.local", &["0/100/80/web.shop.svc.cluster.local"]),
        case("SRV", "_none._tcp.web.shop.svc.cluster.local", &[]),
        case("TXT", "dns-version.cluster.local", &["1.1.0"]),
    ]
}
