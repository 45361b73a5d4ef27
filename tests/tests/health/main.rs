//! Health and metrics of the agent, as load balancers, probes and Prometheus ask for them: rows S50 to S53.

mod scrape;

use std::net::{IpAddr, SocketAddr};

use fairlead_tests::{Lab, Node, Pod, Probes, binary};
use serde_json::{Value, json};

/// What the dashboard and the alerts of kubernetes-mixin ask of kube-proxy, but for `up`, which Prometheus makes, `go_goroutines`,
/// since there are none, and `rest_client_*`, since there is no API server in a lab: what counts those has tests of its own. The
/// last are names that kube-proxy has for netfilter.
const KUBERNETES_MIXIN: [&str; 12] = [
    "kubeproxy_sync_proxy_rules_duration_seconds_count",
    "kubeproxy_sync_proxy_rules_duration_seconds_bucket",
    "kubeproxy_network_programming_duration_seconds_count",
    "kubeproxy_network_programming_duration_seconds_bucket",
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_start_time_seconds",
    "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
    "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
    "kubeproxy_conntrack_reconciler_sync_duration_seconds_count",
    "kubeproxy_conntrack_reconciler_deleted_entries_total",
];

/// An answer over HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Asks from a place; the error is what kept it from an answer.
fn ask(place: &impl Probes, ip: impl Into<IpAddr>, port: u16, path: &str) -> Result<Answer, String> {
    let lab = binary("fairlead-lab").unwrap();
    let address = SocketAddr::new(ip.into(), port).to_string();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let ended = place.run(&[lab.to_str().unwrap(), "say", &address, &request]);
    if !ended.ok() {
        return Err(ended.stderr);
    }
    let (head, body) = ended.stdout.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {}", ended.stdout))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| head.to_owned())?;
    Ok(Answer { status, head: head.to_ascii_lowercase(), body: body.trim_end_matches('\n').to_owned() })
}

fn is(answer: Result<Answer, String>, status: u16) -> Result<Answer, String> {
    answer.and_then(|answer| if answer.status == status { Ok(answer) } else { Err(format!("{answer:?}")) })
}

fn refused(answer: Result<Answer, String>) -> Result<(), String> {
    match answer {
        Err(error) if error.contains("refused") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// A service of a load balancer that looks for endpoints on each node, with one endpoint.
fn service(name: &str, port: u16, pod: &Pod, conditions: &Value, cause: &str) -> String {
    let number = port % 250;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": port,
            "clusterIP": format!("10.96.50.{number}"),
            "clusterIPs": [format!("10.96.50.{number}"), format!("fd00:10:96::50:{number}")],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    });
    let mut text = service.to_string();
    for (family, ip) in ["IPv4", "IPv6"].into_iter().zip(pod.ips()) {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "shop",
                "name": format!("{name}-{}", family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": name},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": cause},
            },
            "addressType": family,
            "endpoints": [{"addresses": [ip], "nodeName": pod.node().name(), "conditions": conditions}],
            "ports": [{"name": "http", "port": 8080}],
        });
        text += &format!("\n---\n{slice}");
    }
    text
}

fn ready() -> Value {
    json!({"ready": true})
}

const OLD: &str = "2020-01-01T00:00:00Z";

fn addresses(node: &Node) -> [IpAddr; 2] {
    [node.v4().into(), node.v6().into()]
}

#[test]
fn s50_a_health_check_follows_its_service() {
    let lab = Lab::builder().nodes(2).start();
    let pod = lab.node("node-1").pod("shop/web").tcp(8080).start();
    let [here, there] = ["node-1", "node-2"].map(|name| addresses(lab.node(name)));
    lab.apply(&service("web", 31050, &pod, &ready(), OLD));
    for (here, there) in here.into_iter().zip(there) {
        let answer =
            lab.wait_until("the node with an endpoint is good", || is(ask(lab.client(), here, 31050, "/"), 200));
        assert_eq!(
            answer.body,
            "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 1,\n\
             \t\"serviceProxyHealthy\": true\n}"
        );
        for header in
            ["content-type: application/json", "x-content-type-options: nosniff", "x-load-balancing-endpoint-weight: 1"]
        {
            assert!(answer.head.contains(header), "{}", answer.head);
        }
        assert!(is(ask(lab.client(), here, 31050, "/any/path?x"), 200).is_ok(), "every path is answered");
        let answer = lab.wait_until("the other node is not", || is(ask(lab.client(), there, 31050, "/"), 503));
        assert_eq!(answer.json()["localEndpoints"], 0);
    }

    // Still served, and the load balancer should go elsewhere.
    let ending = json!({"ready": false, "serving": true, "terminating": true});
    lab.apply(&service("web", 31050, &pod, &ending, OLD));
    lab.wait_until("an endpoint that ends does not count", || is(ask(lab.client(), here[0], 31050, "/"), 503));

    lab.apply(&service("web", 31051, &pod, &ready(), OLD));
    for here in here {
        lab.wait_until("the new port answers", || is(ask(lab.client(), here, 31051, "/"), 200));
        lab.wait_until("the old port is closed", || refused(ask(lab.client(), here, 31050, "/")));
    }

    // By every address of the node, though the service is of one family.
    let both = service("single", 31053, &pod, &ready(), OLD);
    let single = both.replace(r#","fd00:10:96::50:53""#, "");
    assert_ne!(both, single);
    lab.apply(&single);
    for here in here {
        lab.wait_until("the node answers for it", || is(ask(lab.client(), here, 31053, "/"), 200));
    }

    // calico#8112: what goes while the agent is away is not served by the next.
    let node = lab.node("node-1");
    node.agent().kill9();
    lab.delete("Service", "shop/web");
    node.start_agent();
    lab.wait_until("the agent is ready again", || is(ask(lab.client(), here[0], 10256, "/readyz"), 200));
    lab.apply(&service("other", 31052, &pod, &ready(), OLD));
    lab.wait_until("the other service is served", || is(ask(lab.client(), here[0], 31052, "/"), 200));
    for node in ["node-1", "node-2"] {
        let ip = lab.node(node).v4();
        lab.wait_until("the service is gone", || refused(ask(lab.client(), ip, 31051, "/")));
    }
}

#[test]
fn s50_a_port_that_is_taken_disturbs_no_other() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let pod = node.pod("shop/web").tcp(8080).start();
    node.serve("shop/squatter", &[31060], &[]);
    lab.apply(&service("taken", 31060, &pod, &ready(), OLD));
    lab.apply(&service("twin", 31061, &pod, &ready(), OLD));
    lab.apply(&service("fine", 31061, &pod, &ready(), OLD));
    lab.wait_until("the port that is free is served", || is(ask(lab.client(), node.v4(), 31061, "/"), 200));
    lab.wait_until("what fails is said", || {
        let log = node.agent().log();
        let said =
            log.contains("FailedToStartServiceHealthcheck") && log.contains("31060") && log.contains("shop/taken");
        // Two services with one port: one has it, and the other is told who.
        if said && log.contains("has this port") { Ok(()) } else { Err(log) }
    });
}

#[test]
fn s51_s52_probes_and_load_balancers_are_answered() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    for ip in addresses(node) {
        // An agent takes requests of the plugin a moment before it is asked for its health.
        let answer = lab.wait_until("the agent is healthy", || is(ask(lab.client(), ip, 10256, "/healthz"), 200));
        let body = answer.json();
        assert_eq!((&body["nodeEligible"], &body["healthy"]), (&json!(true), &json!(true)), "{body}");
        assert!(body["lastUpdated"].is_string() && body["currentTime"].is_string(), "{body}");
        assert!(is(ask(lab.client(), ip, 10256, "/livez"), 200).unwrap().json()["nodeEligible"].is_null());
        lab.wait_until("the agent is ready", || is(ask(lab.client(), ip, 10256, "/readyz"), 200));
        is(ask(lab.client(), ip, 10256, "/nothing"), 404).unwrap();
    }

    let taint = "taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]";
    lab.apply(&node.manifest().replace("spec:\n", &format!("spec:\n  {taint}\n")));
    lab.wait_until("a node that goes is not eligible", || is(ask(lab.client(), node.v4(), 10256, "/healthz"), 503));
    is(ask(lab.client(), node.v4(), 10256, "/livez"), 200).unwrap();
    lab.apply(&node.manifest());
    lab.wait_until("a node that stays is", || is(ask(lab.client(), node.v4(), 10256, "/healthz"), 200));
    lab.delete("Node", "node-1");
    lab.wait_until("a node without object is not", || is(ask(lab.client(), node.v4(), 10256, "/healthz"), 503));
}

#[test]
fn s51_a_kube_proxy_that_is_still_there_is_named() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    node.agent().stop();
    node.serve("kube-system/kube-proxy", &[10256], &[]);
    node.start_agent();
    lab.wait_until("the log says what to do", || {
        let log = node.agent().log();
        if log.contains("10256") && log.contains("delete daemonset kube-proxy") { Ok(()) } else { Err(log) }
    });
    node.pod("shop/web").start().delete();
    is(ask(&**node, [127, 0, 0, 1], 10249, "/metrics"), 200).unwrap();
}

#[test]
fn s53_metrics_tell_what_the_agent_does() {
    let lab = Lab::builder().nodes(2).start();
    let node = lab.node("node-1");
    let pod = node.pod("shop/web").tcp(8080).start();
    let soon = node.must_run(&["date", "-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]);
    lab.apply(&service("web", 31053, &pod, &ready(), soon.trim()));
    let metrics = || is(ask(&**node, [127, 0, 0, 1], 10249, "/metrics"), 200).unwrap();
    lab.wait_until("the change is measured", || {
        let text = metrics().body;
        let line = "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv6\"} 1";
        if text.contains(line) { Ok(()) } else { Err(text) }
    });
    is(ask(lab.client(), node.v4(), 10256, "/healthz"), 200).unwrap();
    let answer = metrics();
    assert!(answer.head.contains("text/plain; version=0.0.4"), "{}", answer.head);
    for line in [
        "# TYPE kubeproxy_sync_proxy_rules_duration_seconds histogram",
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.001\"}",
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"16.384\"}",
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.25\"} ",
        "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"300\"} 1",
        "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge",
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv6\"} 1",
        "# TYPE kubeproxy_sync_proxy_rules_endpoint_changes_total counter",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
        "kubeproxy_sync_proxy_rules_service_changes_total 1",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"external\"} 0",
        "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 0",
        "fairlead_table_entries{table=\"FRONTENDS\"} 2",
        "fairlead_table_entries{table=\"PODS\"} 1",
        "fairlead_table_capacity{table=\"CT_EST\"} 524288",
        "fairlead_objects{kind=\"Node\"} 2",
        "fairlead_source_synced{kind=\"Pod\"} 1",
        "fairlead_health{state=\"ready\"} 1",
        "fairlead_pods 1",
        "fairlead_cni_request_duration_seconds_count{result=\"ok\",verb=\"attach\"} 1",
        "fairlead_programming_duration_seconds_bucket{le=\"0.00025\"}",
        "fairlead_plan_failures_total 0",
        "fairlead_build_info{version=\"",
        "process_resident_memory_bytes ",
    ] {
        assert!(answer.body.contains(line), "{line} is not in\n{}", answer.body);
    }
    let named = |name: &str| {
        answer.body.lines().any(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']))
    };
    for name in KUBERNETES_MIXIN {
        assert!(named(name), "kubernetes-mixin asks for {name}, which is not in\n{}", answer.body);
    }
    // What kube-proxy answers at this port besides.
    let beside = |path: &str| is(ask(&**node, [127, 0, 0, 1], 10249, path), 200).unwrap();
    assert_eq!(beside("/healthz").body, "ok");
    let configured = beside("/configz").json();
    assert_eq!(configured["kubeproxy.config.k8s.io"]["mode"], "ebpf", "{configured}");
    assert_eq!(configured["kubeproxy.config.k8s.io"]["metricsBindAddress"], "127.0.0.1:10249", "{configured}");
    // On the other node the service has endpoints and none of them is there.
    let other = lab.node("node-2");
    lab.wait_until("services without local endpoints are counted", || {
        let text = is(ask(&**other, [127, 0, 0, 1], 10249, "/metrics"), 200).unwrap().body;
        let line =
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"external\"} 1";
        if text.contains(line) { Ok(()) } else { Err(text) }
    });
    refused(ask(lab.client(), node.v4(), 10249, "/metrics")).unwrap();

    // A pod sends from an address that is not its own.
    let drops = |text: &str| text.contains("fairlead_drops_total{reason=\"no_such_pod\"}");
    let [cidr, _] = pod.ips();
    let IpAddr::V4(cidr) = cidr else { panic!() };
    let [a, b, c, _] = cidr.octets();
    pod.tcp([a, b, c, 250], 80).unwrap_err();
    lab.wait_until("drops are counted by reason", || {
        let text = metrics().body;
        if drops(&text) { Ok(()) } else { Err(text) }
    });
}
