//! The cluster's DNS as pods use it: a server on each node behind the kube-dns Service. The server by itself is tested
//! beside its source, row by row.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fairlead_tests::{
    Lab, Node, Pod, Probe, ProbeError, Probes, Process, ServiceManifest, Transport, Via, bench, binary,
};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::json;

const VIPS: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];

/// Where NodeLocal DNSCache was before.
const NODE_LOCAL: [&str; 2] = ["169.254.20.10", "fd00:90::10"];

/// The directory that a node's agent and its DNS server both see.
const NAMES: &str = "/run/fairlead/names";

/// Two nodes with a DNS server and a client each.
struct Stage {
    lab: Lab,
    clients: Vec<Pod>,
    servers: Vec<Pod>,
    processes: Vec<Process>,
}

fn vips() -> [IpAddr; 2] {
    VIPS.map(|ip| ip.parse().unwrap())
}

impl Stage {
    fn new() -> Self {
        let lab =
            Lab::builder().zones(&["zone-a", "zone-b"]).agent(&["--node-local-dns", &NODE_LOCAL.join(",")]).start();
        let program = binary("fairlead-dns").unwrap().display().to_string();
        let objects = lab.objects().directory().display().to_string();
        // Another server of the same objects under another zone stands for the world outside.
        let upstream = SocketAddr::from((lab.node("node-1").v4(), 5353)).to_string();
        let outside = ["--zone", "corp.example", "--listen", &upstream, "--resolv-conf", "/dev/null"];
        let mut processes = vec![lab.node("node-1").spawn(
            "upstream",
            &[&[&program, "--objects", &objects][..], &outside].concat(),
            &[],
        )];
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        for node in lab.nodes() {
            let server = node.pod(&format!("kube-system/dns-{}", node.name())).label("k8s-app", "kube-dns").start();
            processes.push(server.spawn(
                "dns",
                &[&program, "--objects", &objects, "--upstream", &upstream, "--threads", "1", "--names-dir", NAMES],
                &[],
            ));
            clients.push(node.pod(&format!("client/{}", node.name())).tcp(80).start());
            servers.push(server);
        }
        let stage = Self { lab, clients, servers, processes };
        stage.kube_dns(&[true, true]);
        for client in &stage.clients {
            for vip in vips() {
                stage.lab.wait_until("the cluster's DNS answers", || {
                    let answer = ask(client, (vip, 53).into(), Transport::Udp, "svc.cluster.local A")?;
                    if answer.metadata.response_code == ResponseCode::NoError {
                        Ok(())
                    } else {
                        Err(ProbeError::Refused)
                    }
                });
            }
        }
        stage
    }

    /// Applies the Service as clusters have it, with servers that are ready or not.
    fn kube_dns(&self, ready: &[bool]) {
        let mut service =
            ServiceManifest::new("kube-system/kube-dns").ips(&VIPS).udp("dns", 53, 53).tcp("dns-tcp", 53, 53);
        for (server, ready) in self.servers.iter().zip(ready) {
            service = service.endpoint_with(server, &json!({"ready": ready, "serving": ready, "terminating": false}));
        }
        let documents: Vec<String> = service
            .yaml()
            .split("\n---\n")
            .map(|document| {
                let mut object: serde_json::Value = serde_json::from_str(document).unwrap();
                if object["kind"] == "Service" {
                    object["spec"]["trafficDistribution"] = "PreferSameNode".into();
                }
                for endpoint in object["endpoints"].as_array_mut().into_iter().flatten() {
                    let node = endpoint["nodeName"].clone();
                    endpoint["hints"] = json!({"forNodes": [{"name": node}], "forZones": [{"name": endpoint["zone"]}]});
                }
                object.to_string()
            })
            .collect();
        self.lab.apply(&documents.join("\n---\n"));
    }

    /// Asks by every way from every client, and wants the same answer everywhere.
    #[track_caller]
    fn check(&self, question: &str, code: ResponseCode, records: &[String]) {
        for client in &self.clients {
            for vip in vips() {
                for (transport, via) in
                    [Transport::Udp, Transport::Tcp].into_iter().flat_map(|t| Via::BOTH.map(|v| (t, v)))
                {
                    self.lab.wait_until(&format!("{question} is answered as it should be"), || {
                        let answer =
                            ask(&client.via(via), (vip, 53).into(), transport, question).map_err(|e| e.to_string())?;
                        let mut found: Vec<String> = answer.answers.iter().map(ToString::to_string).collect();
                        found.sort();
                        if answer.metadata.response_code == code && found == records {
                            Ok(())
                        } else {
                            Err(answer.to_string())
                        }
                    });
                }
            }
        }
    }
}

/// What a node says of the queries that its kernel answers.
fn in_kernel(node: &Node) -> serde_json::Value {
    let status: serde_json::Value = serde_json::from_str(&node.fairlead(&["status", "-o", "json"]).stdout).unwrap();
    status["dns"].clone()
}

/// Waits until the kernel of a node answers queries, or does no longer, for a reason with these words.
#[track_caller]
fn wait_for_kernel(lab: &Lab, node: &Node, why_not: Option<&str>) {
    lab.wait_until("DNS in the kernel is as it should be", || {
        let dns = in_kernel(node);
        let why = dns["obstacle"].as_str();
        let is_so = match why_not {
            None => dns["in_kernel"] == true && why.is_none(),
            Some(words) => dns["in_kernel"] == false && why.is_some_and(|why| why.contains(words)),
        };
        if is_so { Ok(()) } else { Err(dns.to_string()) }
    });
}

/// One query, `name type`, and its answer.
fn ask(from: &impl Probes, to: SocketAddr, transport: Transport, question: &str) -> Result<Message, ProbeError> {
    let (name, kind) = question.split_once(' ').unwrap();
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind.parse::<RecordType>().unwrap()));
    let answer = from.message(&Probe::new(transport, to), &message.to_vec().unwrap())?;
    Ok(Message::from_vec(&answer).expect("an answer that can be read"))
}

/// An address record of a name in the cluster's zone of services.
fn record(name: &str, ip: impl Into<IpAddr>) -> String {
    let ip = ip.into();
    format!("{name}.svc.cluster.local. 5 IN {} {ip}", if ip.is_ipv4() { "A" } else { "AAAA" })
}

#[test]
fn d2_addresses_of_a_service_and_no_data_for_the_family_it_lacks() {
    let stage = Stage::new();
    let web = ServiceManifest::new("shop/web").ips(&["10.96.1.1", "fd00:10:96::1:1"]).tcp("http", 80, 80);
    let only = ServiceManifest::new("shop/only").ips(&["10.96.1.2"]).tcp("http", 80, 80);
    stage.lab.apply(&format!("{}\n---\n{}", web.yaml(), only.yaml()));
    let v6: IpAddr = "fd00:10:96::1:1".parse().unwrap();
    stage.check("web.shop.svc.cluster.local A", ResponseCode::NoError, &[record("web.shop", [10, 96, 1, 1])]);
    stage.check("web.shop.svc.cluster.local AAAA", ResponseCode::NoError, &[record("web.shop", v6)]);
    stage.check("only.shop.svc.cluster.local AAAA", ResponseCode::NoError, &[]);
}

#[test]
fn d3_d5_endpoints_of_a_headless_service_and_their_changes() {
    let stage = Stage::new();
    let (one, two) = (&stage.clients[0], &stage.clients[1]);
    let pets = ServiceManifest::new("shop/pets").tcp("db", 80, 80);
    stage.lab.apply(&pets.clone().endpoints(&[one, two]).yaml());
    let mut both = vec![record("pets.shop", one.v4()), record("pets.shop", two.v4())];
    both.sort();
    stage.check("pets.shop.svc.cluster.local A", ResponseCode::NoError, &both);
    let host = one.v4().to_string().replace('.', "-");
    let own = record(&format!("{host}.pets.shop"), one.v4());
    stage.check(&format!("{host}.pets.shop.svc.cluster.local A"), ResponseCode::NoError, &[own]);
    stage.lab.apply(&pets.clone().endpoint(two).yaml());
    stage.check("pets.shop.svc.cluster.local A", ResponseCode::NoError, &[record("pets.shop", two.v4())]);
    stage.lab.apply(&pets.yaml());
    stage.check("pets.shop.svc.cluster.local A", ResponseCode::NXDomain, &[]);
}

#[test]
fn d49_the_kernel_answers_in_the_servers_place_what_that_would_say() {
    let stage = Stage::new();
    let node = stage.lab.node("node-1");
    let web = ServiceManifest::new("shop/web").ips(&["10.96.1.1", "fd00:10:96::1:1"]).tcp("http", 80, 80);
    let only = ServiceManifest::new("shop/only").ips(&["10.96.1.2"]).tcp("http", 80, 80);
    stage.lab.apply(&format!("{}\n---\n{}", web.yaml(), only.yaml()));
    stage.check("only.shop.svc.cluster.local A", ResponseCode::NoError, &[record("only.shop", [10, 96, 1, 2])]);
    wait_for_kernel(&stage.lab, &node, None);
    // What only the server says goes there.
    let srv = "_http._tcp.only.shop.svc.cluster.local. 5 IN SRV 0 100 80 only.shop.svc.cluster.local.";
    stage.check("_http._tcp.only.shop.svc.cluster.local SRV", ResponseCode::NoError, &[srv.to_owned()]);
    let questions = [
        ("web.shop.svc.cluster.local A", ResponseCode::NoError, 1),
        ("web.shop.svc.cluster.local AAAA", ResponseCode::NoError, 1),
        ("WEB.Shop.svc.Cluster.local A", ResponseCode::NoError, 1),
        ("only.shop.svc.cluster.local AAAA", ResponseCode::NoError, 0),
        ("www.example.org.shop.svc.cluster.local A", ResponseCode::NXDomain, 0),
        ("www.example.org.svc.cluster.local AAAA", ResponseCode::NXDomain, 0),
    ];
    for vip in vips() {
        for (question, code, count) in questions {
            let by =
                |transport| ask(&stage.clients[0].via(Via::Packet), (vip, 53).into(), transport, question).unwrap();
            let before = in_kernel(&node)["answers"].as_u64();
            let kernel = by(Transport::Udp);
            let after = in_kernel(&node)["answers"].as_u64();
            assert_eq!((kernel.metadata.response_code, kernel.answers.len()), (code, count), "{question}");
            assert_eq!(after, before.map(|count| count + 1), "{question}");
            // Over TCP it is the server.
            assert_eq!(kernel.to_vec().unwrap(), by(Transport::Tcp).to_vec().unwrap(), "{question}");
            assert_eq!(in_kernel(&node)["answers"].as_u64(), after, "{question}");
        }
    }
}

#[test]
fn d50_the_kernel_answers_for_as_long_as_the_server_stands_by_it() {
    const STOP: i32 = 19;
    const CONTINUE: i32 = 18;
    let stage = Stage::new();
    let node = stage.lab.node("node-1");
    stage.lab.apply(&ServiceManifest::new("shop/web").ips(&["10.96.1.1"]).tcp("http", 80, 80).yaml());
    let question = "web.shop.svc.cluster.local A";
    stage.check(question, ResponseCode::NoError, &[record("web.shop", [10, 96, 1, 1])]);
    wait_for_kernel(&stage.lab, &node, None);
    let quick = |vip: IpAddr| ask(&stage.clients[0], (vip, 53).into(), Transport::Udp, question).map(|_| ());
    let server = &stage.processes[1];
    // While it sleeps, and nobody knows it yet, it is the kernel that answers.
    server.kill(STOP);
    vips().into_iter().for_each(|vip| quick(vip).unwrap());
    wait_for_kernel(&stage.lab, &node, Some("no longer says"));
    vips().into_iter().for_each(|vip| quick(vip).unwrap_err());
    server.kill(CONTINUE);
    wait_for_kernel(&stage.lab, &node, None);
    // Rules that may be about names of the zone want the server's answers.
    let policy = "{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: names}, \
                  spec: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: client}}}, \
                  egress: [{name: names, action: Accept, to: [{domainNames: ['*.svc.cluster.local']}]}]}}";
    stage.lab.apply(
        "{apiVersion: v1, kind: Namespace, metadata: {name: client, labels: {kubernetes.io/metadata.name: client}}}",
    );
    stage.lab.apply(policy);
    wait_for_kernel(&stage.lab, &node, Some("*.svc.cluster.local"));
    stage.lab.delete("ClusterNetworkPolicy", "names");
    wait_for_kernel(&stage.lab, &node, None);
    // What is gone is gone, and the table goes with the server.
    server.kill(9);
    wait_for_kernel(&stage.lab, &node, Some("hung up"));
    vips().into_iter().for_each(|vip| quick(vip).unwrap_err());
}

#[test]
fn d49_policy_judges_what_the_kernel_answers() {
    let stage = Stage::new();
    let node = stage.lab.node("node-1");
    stage.lab.apply(&ServiceManifest::new("shop/web").ips(&["10.96.1.1"]).tcp("http", 80, 80).yaml());
    let question = "web.shop.svc.cluster.local A";
    stage.check(question, ResponseCode::NoError, &[record("web.shop", [10, 96, 1, 1])]);
    wait_for_kernel(&stage.lab, &node, None);
    let quick = |vip: IpAddr| ask(&stage.clients[0], (vip, 53).into(), Transport::Udp, question).map(|_| ());
    let denied = |what: &str| {
        stage.lab.wait_until(what, || match quick(vips()[0]) {
            Ok(()) => Err("it is answered"),
            Err(_) => Ok(()),
        })
    };
    let policy = |namespace: &str, spec: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: {namespace}, name: dns}}, \
             spec: {{podSelector: {{}}, {spec}}}}}"
        )
    };
    let egress = policy("client", "policyTypes: [Egress]");
    stage.lab.apply(&egress);
    denied("the client's egress is denied");
    stage.lab.apply(&policy(
        "client",
        "policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]}]",
    ));
    stage.lab.wait_until("the client may ask", || quick(vips()[0]));
    assert_eq!(in_kernel(&node)["in_kernel"], true);
    stage.lab.apply(&policy("kube-system", "policyTypes: [Ingress]"));
    denied("the server's ingress is denied");
}

#[test]
fn d7_named_ports_of_a_service() {
    let stage = Stage::new();
    stage.lab.apply(&ServiceManifest::new("shop/only").ips(&["10.96.1.2"]).tcp("http", 80, 80).yaml());
    let srv = "_http._tcp.only.shop.svc.cluster.local. 5 IN SRV 0 100 80 only.shop.svc.cluster.local.";
    stage.check("_http._tcp.only.shop.svc.cluster.local SRV", ResponseCode::NoError, &[srv.to_owned()]);
}

#[test]
fn d16_d31_names_without_records_names_of_nobody_and_other_zones() {
    let stage = Stage::new();
    stage.lab.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
    stage.lab.apply(&ServiceManifest::new("shop/web").ips(&["10.96.1.1"]).tcp("http", 80, 80).yaml());
    stage.check("shop.svc.cluster.local A", ResponseCode::NoError, &[]);
    stage.check("nobody.shop.svc.cluster.local A", ResponseCode::NXDomain, &[]);
    let outside = "web.shop.svc.corp.example. 5 IN A 10.96.1.1";
    stage.check("web.shop.svc.corp.example A", ResponseCode::NoError, &[outside.to_owned()]);
}

#[test]
fn queries_stay_on_their_node_until_its_server_is_not_ready() {
    let stage = Stage::new();
    let question = "svc.cluster.local A";
    let quick = |client: &Pod, vip: IpAddr| ask(client, (vip, 53).into(), Transport::Udp, question).map(|_| ());
    // Its server gone without a word, the first node's clients get no answer and the other's do: nobody went across.
    stage.processes[1].kill(9);
    assert!(stage.processes[1].wait(Duration::from_secs(30)).is_some());
    for vip in vips() {
        for _ in 0..3 {
            quick(&stage.clients[0], vip).unwrap_err();
            quick(&stage.clients[1], vip).unwrap();
        }
    }
    stage.kube_dns(&[false, true]);
    for vip in vips() {
        stage.lab.wait_until("the other node's server answers", || quick(&stage.clients[0], vip));
        for _ in 0..10 {
            quick(&stage.clients[0], vip).unwrap();
        }
    }
}

#[test]
fn s65_node_local_dns_is_this_nodes_server_then_another_nodes_and_policies_see_that_server() {
    let stage = Stage::new();
    let addresses: [IpAddr; 2] = NODE_LOCAL.map(|ip| ip.parse().unwrap());
    let question = "svc.cluster.local A";
    // Both protocols by both ways, from a pod and from a process of its node.
    let everywhere = |number: usize, what: &str, answered: bool| {
        let node = &stage.lab.nodes()[number];
        let pod = Via::BOTH.map(|via| (format!("pod, {via:?}"), stage.clients[number].via(via)));
        let process = [("process".to_owned(), node.via(Via::Socket))];
        for (who, from) in pod.into_iter().chain(process.into_iter().filter(|_| answered)) {
            let all = addresses.iter().flat_map(|ip| [Transport::Udp, Transport::Tcp].map(|t| (*ip, t)));
            // Whoever waits for nothing waits long: one of each family and protocol is enough for that.
            for (ip, transport) in all.step_by(if answered { 1 } else { 3 }) {
                stage.lab.wait_until(&format!("{what}: {who} of node {number}, {transport:?} at {ip}"), || {
                    let asked = ask(&from, (ip, 53).into(), transport, question).map(|_| ());
                    if asked.is_ok() == answered { Ok(()) } else { Err(format!("{asked:?}")) }
                });
            }
        }
    };
    everywhere(0, "a server on each node", true);
    everywhere(1, "a server on each node", true);

    // Nobody goes across while there is a server here, as long as it counts as ready.
    stage.processes[1].kill(9);
    assert!(stage.processes[1].wait(Duration::from_secs(30)).is_some());
    everywhere(0, "a server that is silent", false);
    everywhere(1, "the other node's server", true);
    stage.kube_dns(&[false, true]);
    everywhere(0, "another node's server", true);

    // Policies are about the pod that answers, here the other node's.
    let policy = |rules: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: client, name: dns}}, \
             spec: {{podSelector: {{}}, policyTypes: [Egress], egress: [{rules}]}}}}"
        )
    };
    stage.lab.apply(&policy(""));
    everywhere(0, "with everything denied", false);
    stage.lab.apply(&policy("{to: [{ipBlock: {cidr: 169.254.20.10/32}}, {ipBlock: {cidr: 'fd00:90::10/128'}}]}"));
    everywhere(0, "with the address allowed and not the pod", false);
    stage.lab.apply(&policy("{to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]}"));
    everywhere(0, "with the DNS pods allowed", true);
}

/// How many questions the soak asks.
const SOAK: &str = "FAIRLEAD_SOAK_QUESTIONS";

#[test]
#[ignore = "it asks ten million questions: `cargo xtask test --full`; FAIRLEAD_SOAK_QUESTIONS is another number"]
fn d31_nothing_is_lost_while_upstream_servers_die_lie_truncate_and_come_back() {
    let questions = std::env::var(SOAK).map_or(10_000_000, |number| number.parse().expect(SOAK));
    let soaked = bench::soak::run(questions, &binary("fairlead-dns").unwrap()).unwrap();
    println!("{soaked}");
    assert!(soaked.faults().is_empty(), "{soaked}");
}
