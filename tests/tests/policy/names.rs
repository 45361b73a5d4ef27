//! `domainNames`, with packets: a fairlead-dns on each node, and another one that stands for the servers of the world. P65, P76
//! to P79, P84, P85, P87, P88.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fairlead_tests::{
    Connection, Lab, Pod, Probe, ProbeError, Probes, Process, ServiceManifest, Transport, Via, binary,
};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

const VIP: &str = "10.96.0.10";

/// How long silence is waited for: far longer than an answer takes.
const SILENCE: Duration = Duration::from_millis(300);

/// Seconds that answers of the world are good for.
const TTL: u64 = 3;

/// What the agent adds to that.
const GRACE: u64 = 5;

/// What the world says of names.
const WORLD: &str = "
kubernetes cluster.local
template IN A one.example {
    answer \"{{ .Name }} 3 IN A 192.0.2.100\"
}
template IN AAAA one.example {
    answer \"{{ .Name }} 3 IN AAAA 2001:db8::100\"
}
template IN A long.example {
    answer \"{{ .Name }} 600 IN A 172.18.0.100\"
}
template IN A wild.example {
    answer \"{{ .Name }} 600 IN CNAME edge.cdn.example\"
    answer \"edge.cdn.example 600 IN A 172.18.0.100\"
}
template IN A busy.example {
    match \"^n(?P<b>[0-9]+)-(?P<c>[0-9]+)[.]busy[.]example[.]$\"
    answer \"{{ .Name }} 600 IN A 198.18.{{ .Group.b }}.{{ .Group.c }}\"
}
template IN A other.example {
    answer \"{{ .Name }} 600 IN A 172.18.0.100\"
}
";

const POLICY: &str = "
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: app}}}
  egress:
  - action: Accept
    to: [{namespaces: {}}, {nodes: {}}]
  - name: by-name
    action: Accept
    to: [{domainNames: [one.example, long.example, '*.wild.example', '*.wide.example', '*.busy.example']}]
    protocols: [{tcp: {destinationPort: {number: 80}}}]
  - action: Deny
    to: [{networks: [0.0.0.0/0, '::/0']}]
";

struct Stage {
    lab: Lab,
    /// On the first node, with the policy.
    pods: [Pod; 2],
    servers: Vec<Pod>,
    /// The world's, then one for each node.
    processes: Vec<Process>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(corefile(&self.lab));
    }
}

/// The configuration of the world's server.
fn corefile(lab: &Lab) -> PathBuf {
    std::env::temp_dir().join(format!("fairlead-names-{}", lab.id()))
}

fn vip() -> IpAddr {
    VIP.parse().unwrap()
}

impl Stage {
    fn new() -> Self {
        let lab = Lab::builder().zones(&["zone-a", "zone-b"]).start();
        for client in [lab.client(), lab.far_client()] {
            client.serve("outside/server", &[80], &[]);
        }
        for namespace in ["app", "kube-system"] {
            lab.apply(&format!(
                "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{kubernetes.io/metadata.name: \
                 {namespace}}}}}}}"
            ));
        }
        let program = binary("fairlead-dns").unwrap().display().to_string();
        let objects = lab.objects().directory().display().to_string();
        let upstream = SocketAddr::from((lab.node("node-1").v4(), 5353)).to_string();
        let wide: String = (0..300)
            .map(|n| format!("    answer \"{{{{ .Name }}}} 600 IN A 198.51.{}.{}\"\n", 100 + n / 250, n % 250))
            .collect();
        let wide = format!("template IN A wide.example {{\n{wide}}}");
        std::fs::write(corefile(&lab), format!(".:5353 {{\n{WORLD}\n{wide}\n}}\n")).unwrap();
        let corefile = corefile(&lab).display().to_string();
        let world = [&program, "--objects", &objects, "--corefile", &corefile, "--listen", &upstream];
        let mut processes = vec![lab.node("node-1").spawn("upstream", &world, &[])];
        let mut servers = Vec::new();
        for node in lab.nodes() {
            let server = node.pod(&format!("kube-system/dns-{}", node.name())).label("k8s-app", "kube-dns").start();
            let names = ["--names-dir", "/run/fairlead/names", "--threads", "1"];
            let argv = [&[program.as_str(), "--objects", &objects, "--upstream", &upstream][..], &names].concat();
            processes.push(server.spawn("dns", &argv, &[]));
            servers.push(server);
        }
        let pods = ["app/a", "app/b"].map(|key| lab.node("node-1").pod(key).tcp(80).start());
        let stage = Self { lab, pods, servers, processes };
        stage.kube_dns(&[true, true]);
        stage.lab.apply(POLICY);
        stage.lab.wait_until("the policy is in force", || stage.is_open(0, "192.0.2.100", false));
        stage.lab.wait_until("the world is known", || match stage.ask(0, Transport::Udp, "other.example A") {
            Ok((ResponseCode::NoError, addresses)) if addresses.len() == 1 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        stage
    }

    /// Applies the Service as clusters have it, with servers that are ready or not.
    fn kube_dns(&self, ready: &[bool]) {
        let mut service = ServiceManifest::new("kube-system/kube-dns")
            .ips(&[VIP])
            .udp("dns", 53, 53)
            .tcp("dns-tcp", 53, 53)
            .spec("trafficDistribution", "PreferSameNode".into());
        for (server, ready) in self.servers.iter().zip(ready) {
            let conditions = serde_json::json!({"ready": ready, "serving": ready, "terminating": false});
            service = service.endpoint_with(server, &conditions);
        }
        let documents: Vec<String> = service
            .yaml()
            .split("\n---\n")
            .map(|document| {
                let mut object: serde_json::Value = serde_json::from_str(document).unwrap();
                for endpoint in object["endpoints"].as_array_mut().into_iter().flatten() {
                    let node = endpoint["nodeName"].clone();
                    endpoint["hints"] =
                        serde_json::json!({"forNodes": [{"name": node}], "forZones": [{"name": endpoint["zone"]}]});
                }
                object.to_string()
            })
            .collect();
        self.lab.apply(&documents.join("\n---\n"));
    }

    /// What the cluster's DNS says to a pod: `name type`.
    fn ask(&self, pod: usize, transport: Transport, question: &str) -> Result<(ResponseCode, Vec<IpAddr>), ProbeError> {
        ask(&self.pods[pod].via(Via::Packet), (vip(), 53).into(), transport, question)
    }

    /// What it says once the agent has had the time: on a machine that does much else it may be late.
    fn told(&self, pod: usize, transport: Transport, question: &str) -> (ResponseCode, Vec<IpAddr>) {
        self.lab.wait_until("the agent is in time", || match self.ask(pod, transport, question) {
            Ok((ResponseCode::ServFail, _)) => Err("late".to_owned()),
            other => other.map_err(|error| format!("{error:?}")),
        })
    }

    /// Whether an address outside is open to a pod as it should be.
    fn is_open(&self, pod: usize, ip: &str, expected: bool) -> Result<(), String> {
        let probe = Probe::tcp(ip.parse::<IpAddr>().unwrap(), 80).timeout(SILENCE);
        match self.pods[pod].probe(&probe) {
            Ok(_) if expected => Ok(()),
            Err(ProbeError::TimedOut) if !expected => Ok(()),
            other => Err(format!("{ip} from {}: {other:?}", self.pods[pod].key())),
        }
    }

    fn connect(&self, pod: usize, ip: &str) -> Connection {
        let mut open = self.pods[pod].connect(&Probe::tcp(ip.parse::<IpAddr>().unwrap(), 80)).unwrap();
        open.exchange(10, 0).unwrap();
        open
    }

    /// The number of a metric of the DNS server of a node, by its name and labels.
    fn metric(&self, server: usize, name: &str) -> f64 {
        let text = scrape(&self.servers[server]);
        let line = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("no {name} in {text}"));
        line.trim().parse().unwrap()
    }
}

/// One query and the addresses in its answer.
fn ask(
    from: &impl Probes,
    to: SocketAddr,
    transport: Transport,
    question: &str,
) -> Result<(ResponseCode, Vec<IpAddr>), ProbeError> {
    let (name, kind) = question.split_once(' ').unwrap();
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind.parse::<RecordType>().unwrap()));
    let answer = from.message(&Probe::new(transport, to), &message.to_vec().unwrap())?;
    let answer = Message::from_vec(&answer).expect("an answer that can be read");
    let addresses = answer.answers.iter().filter_map(|record| match &record.data {
        RData::A(ip) => Some(ip.0.into()),
        RData::AAAA(ip) => Some(ip.0.into()),
        _ => None,
    });
    Ok((answer.metadata.response_code, addresses.collect()))
}

/// The metrics of a DNS server, read by a process of its own in the pod.
fn scrape(server: &Pod) -> String {
    let script = "exec 3<>/dev/tcp/127.0.0.1/9153; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let process = server.spawn("scrape", &["bash", "-c", script], &[]);
    process.wait(Duration::from_secs(10)).expect("it ends");
    process.log()
}

fn told(addresses: &[&str]) -> (ResponseCode, Vec<IpAddr>) {
    (ResponseCode::NoError, addresses.iter().map(|ip| ip.parse().unwrap()).collect())
}

const FAILS: (ResponseCode, Vec<IpAddr>) = (ResponseCode::ServFail, Vec::new());

#[test]
fn p65_p76_names_open_what_a_pod_is_told_for_as_long_as_it_may_be_used() {
    let stage = Stage::new();
    // The answer comes when its addresses are in force: nothing is waited for.
    for round in 0..20 {
        let (kind, ip) = if round % 2 == 0 { ("A", "192.0.2.100") } else { ("AAAA", "2001:db8::100") };
        assert_eq!(stage.told(0, Transport::Udp, &format!("one.example {kind}")), told(&[ip]));
        stage.is_open(0, ip, true).unwrap();
    }
    let asked = Instant::now();
    let mut open = [stage.connect(0, "192.0.2.100"), stage.connect(0, "2001:db8::100")];
    // Not to another pod of the same rules, not on another port, not by other names.
    stage.is_open(1, "192.0.2.100", false).unwrap();
    assert!(stage.pods[0].probe(&Probe::tcp([192, 0, 2, 100], 81).timeout(SILENCE)).is_err());
    stage.is_open(0, "172.18.0.100", false).unwrap();
    assert_eq!(stage.told(0, Transport::Udp, "other.example A"), told(&["172.18.0.100"]));
    stage.is_open(0, "172.18.0.100", false).unwrap();
    // By TCP, by a wildcard, by an alias.
    assert_eq!(stage.told(0, Transport::Tcp, "A.b.Wild.example A"), told(&["172.18.0.100"]));
    stage.is_open(0, "172.18.0.100", true).unwrap();
    stage.is_open(1, "172.18.0.100", false).unwrap();

    // It ends for new connections, and for those alone.
    let over = asked + Duration::from_secs(TTL + GRACE);
    stage.is_open(0, "192.0.2.100", true).unwrap();
    stage.lab.wait_until("the answer has ended", || stage.is_open(0, "192.0.2.100", false));
    assert!(Instant::now() + Duration::from_secs(1) >= over - Duration::from_secs(TTL), "it ended early");
    stage.is_open(0, "2001:db8::100", false).unwrap();
    for connection in &mut open {
        connection.exchange(1000, 1000).unwrap();
    }
    stage.is_open(0, "172.18.0.100", true).unwrap();
    // Nor do they end when policy changes that is none of theirs, nor by a sweep of the tables.
    for port in [81, 82] {
        stage.lab.apply(&format!(
            "{{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {{name: more}}, spec: {{tier: \
             Admin, priority: 5, subject: {{namespaces: {{}}}}, egress: [{{action: Accept, to: [{{networks: \
             [198.51.100.0/24]}}], protocols: [{{tcp: {{destinationPort: {{number: {port}}}}}}}]}}]}}}}"
        ));
        std::thread::sleep(Duration::from_secs(7));
        for connection in &mut open {
            connection.exchange(1000, 1000).unwrap();
        }
        stage.is_open(0, "192.0.2.100", false).unwrap();
    }
    // Told again it is open again.
    stage.lab.wait_until("the cache has ended", || {
        let _told = stage.ask(0, Transport::Udp, "one.example A");
        stage.is_open(0, "192.0.2.100", true)
    });
    // A rule that goes takes what it opened with it.
    stage.lab.delete("ClusterNetworkPolicy", "more");
    stage.lab.apply(
        &POLICY
            .replace("one.example, long.example, '*.wild.example', '*.wide.example', '*.busy.example'", "none.example"),
    );
    stage.lab.wait_until("the connections are cut", || match open[0].exchange(10, 0) {
        Err(ProbeError::TimedOut) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    stage.is_open(0, "172.18.0.100", false).unwrap();
}

/// What a covered name costs: distinct names, so that the agent is asked about each. Prints it: the machine may be busy.
#[test]
fn p76_the_agents_word_is_a_short_wait() {
    const NAMES: usize = 500;
    let stage = Stage::new();
    let took = |zone: &str| {
        let mut times = Vec::new();
        for n in 0..NAMES {
            let begin = Instant::now();
            let (code, _) = stage.ask(0, Transport::Udp, &format!("n{n}.{zone} A")).unwrap();
            // On a machine that does much else the agent may be late.
            if code == ResponseCode::NoError {
                times.push(begin.elapsed());
            }
        }
        times.sort();
        println!("{} of {NAMES} in {zone}", times.len());
        [times[times.len() / 2], times[times.len() * 99 / 100]]
    };
    let (without, with) = (took("other.example"), took("wild.example"));
    println!("median and 99th percentile of a query: {without:?} of names that no rule has, {with:?} of others");
    println!(
        "{}",
        scrape(&stage.servers[0]).lines().filter(|line| line.contains("policy_wait")).collect::<Vec<_>>().join("\n")
    );
    assert!(stage.metric(0, "fairlead_dns_policy_answers_total{result=\"in_force\"}") > NAMES as f64 / 2.0);
}

#[test]
fn p76_a_pods_names_are_known_to_the_server_when_it_starts() {
    let stage = Stage::new();
    for n in 0..5 {
        let pod = stage.lab.node("node-1").pod(&format!("app/new{n}")).start();
        let read = stage.servers[0].spawn("cat", &["cat", "/run/fairlead/names/rules.json"], &[]);
        read.wait(Duration::from_secs(10)).expect("it ends");
        assert!(read.log().contains(&format!("\"{}\"", pod.v4())), "{} in {}", pod.v4(), read.log());
    }
}

#[test]
fn p85_a_pod_that_asks_for_very_much_keeps_nobody_waiting() {
    const NAMES: usize = 60;
    let stage = Stage::new();
    let end = Instant::now() + Duration::from_secs(15);
    let (at_once, took, flood) = std::thread::scope(|scope| {
        let flood = |thread: usize| {
            let stage = &stage;
            move || {
                let mut asked = 0;
                while Instant::now() < end {
                    let _any = stage.ask(1, Transport::Tcp, &format!("n{asked}.t{thread}.wide.example A"));
                    asked += 1;
                }
                asked
            }
        };
        let floods: Vec<_> = (0..3).map(|thread| scope.spawn(flood(thread))).collect();
        let mut at_once = 0;
        for n in 0..NAMES {
            let question = format!("n{n}.wild.example A");
            match stage.ask(0, Transport::Udp, &question) {
                Ok((ResponseCode::NoError, _)) => at_once += 1,
                // A client asks again, and the machine may be busy.
                _ => assert_eq!(stage.told(0, Transport::Udp, &question), told(&["172.18.0.100"])),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let begin = Instant::now();
        let _pod = stage.lab.node("node-1").pod("app/new").start();
        let took = begin.elapsed();
        (at_once, took, floods.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>())
    });
    println!(
        "{at_once} of {NAMES} told at once and a pod added in {took:?} beside {flood} questions about 300 addresses"
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
    stage.is_open(0, "172.18.0.100", true).unwrap();
    let size = stage.servers[0].spawn("size", &["stat", "-c", "%s", "/run/fairlead/names-journal"], &[]);
    size.wait(Duration::from_secs(10)).expect("it ends");
    let size: usize = size.log().trim().parse().unwrap();
    // What there may be of a pod's names, twice.
    assert!(size < 2 * 102_400 * 40, "{size}");
}

#[test]
fn p77_without_the_agent_covered_names_fail_and_what_is_in_force_stays() {
    let stage = Stage::new();
    let agent = stage.lab.node("node-1").agent();
    assert_eq!(stage.told(0, Transport::Udp, "long.example A"), told(&["172.18.0.100"]));
    stage.is_open(0, "172.18.0.100", true).unwrap();
    let mut open = stage.connect(0, "172.18.0.100");
    agent.kill9();
    // Of the agent's own word the server remembers a second.
    std::thread::sleep(Duration::from_secs(1));
    for transport in [Transport::Udp, Transport::Tcp] {
        for question in ["one.example A", "long.example A", "x.wild.example A"] {
            assert_eq!(stage.ask(0, transport, question).unwrap(), FAILS, "{question}");
        }
        assert_eq!(stage.ask(0, transport, "other.example A").unwrap(), told(&["172.18.0.100"]));
    }
    stage.is_open(0, "172.18.0.100", true).unwrap();
    // The next server knows of the rules what the agent has left.
    stage.processes[1].kill(9);
    let program = binary("fairlead-dns").unwrap().display().to_string();
    let objects = stage.lab.objects().directory().display().to_string();
    let upstream = SocketAddr::from((stage.lab.node("node-1").v4(), 5353)).to_string();
    let argv = [&program, "--objects", &objects, "--upstream", &upstream, "--names-dir", "/run/fairlead/names"];
    let _next = stage.servers[0].spawn("dns-next", &argv, &[]);
    stage.lab.wait_until("the next server answers", || match stage.ask(0, Transport::Udp, "other.example A") {
        Ok((ResponseCode::NoError, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(stage.ask(0, Transport::Udp, "long.example A").unwrap(), FAILS);
    stage.lab.node("node-1").start_agent();
    // What was in force is so without anybody's asking.
    stage.is_open(0, "172.18.0.100", true).unwrap();
    open.exchange(10, 0).unwrap();
    stage.lab.wait_until("the agent answers again", || match stage.ask(0, Transport::Udp, "one.example A") {
        Ok((ResponseCode::NoError, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    stage.is_open(0, "192.0.2.100", true).unwrap();
}

/// One object of the load: pods of a node that is far away, policies and Services.
fn load(n: usize) -> (String, serde_json::Value) {
    let (low, high, third) = (n % 250 + 1, n / 250, n / 3);
    let object = match n % 3 {
        0 => serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "load", "name": format!("p{n}"), "labels": {"app": format!("a{}", third % 97)}},
            "spec": {"nodeName": "far", "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": format!("10.100.{high}.{low}")}]},
        }),
        1 => serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": if third % 20 == 0 { "app" } else { "load" }, "name": format!("n{n}")},
            "spec": {
                "podSelector": {}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{
                    "namespaceSelector": {}, "podSelector": {"matchLabels": {"app": format!("a{}", third % 97)}},
                }]}],
            },
        }),
        _ => serde_json::json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "load", "name": format!("s{n}")},
            "spec": {
                "type": "ClusterIP", "clusterIP": format!("10.97.{high}.{low}"),
                "clusterIPs": [format!("10.97.{high}.{low}")],
                "ports": [{"name": "web", "port": 80, "protocol": "TCP"}],
            },
        }),
    };
    (format!("load-{n}.yaml"), object)
}

/// What the loop of the agent has to do takes far longer than an answer waits for the agent.
#[test]
fn p87_an_agent_that_is_busy_answers_in_time() {
    const OBJECTS: usize = 10_000;
    const NAMES: usize = 1000;
    let stage = Stage::new();
    let (lab, node, other) = (&stage.lab, stage.lab.node("node-1"), stage.lab.node("node-2"));
    // The other node stands for all of 198.18.0.0/16.
    other.serve("world/edge", &[80], &[]);
    let via = other.v4().to_string();
    for (node, route) in [(other, "add local 198.18.0.0/16 dev lo"), (node, &format!("add 198.18.0.0/16 via {via}"))] {
        let argv: Vec<&str> = ["ip", "route"].into_iter().chain(route.split(' ')).collect();
        let _ended = node.spawn("route", &argv, &[]).wait(Duration::from_secs(10)).expect("it ends");
    }
    lab.apply(
        "{apiVersion: v1, kind: Node, metadata: {name: far}, spec: {podCIDR: 10.100.0.0/16, podCIDRs: [10.100.0.0/16]}, status: \
         {addresses: [{type: InternalIP, address: 172.18.0.77}]}}",
    );
    lab.apply("{apiVersion: v1, kind: Namespace, metadata: {name: load}}");
    assert_eq!(stage.told(0, Transport::Udp, "n255-1.busy.example A"), told(&["198.18.255.1"]));
    stage.is_open(0, "198.18.255.1", true).unwrap();
    stage.is_open(0, "198.18.255.2", false).unwrap();
    let longest = || {
        let status = node.fairlead(&["status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap_or_default();
        status["plans"]["last_micros"].as_u64().unwrap_or_default()
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let (mut count, mut late, mut closed) = (0_usize, Vec::new(), Vec::new());
    let took = std::thread::scope(|scope| {
        let applying = scope.spawn(|| {
            let mut most = 0;
            for n in 0..OBJECTS {
                let (file, object) = load(n);
                lab.objects().write(&file, &object.to_string());
                if n % 500 == 499 {
                    most = most.max(longest());
                }
            }
            lab.wait_within(Duration::from_secs(120), "the load is in force", || {
                most = most.max(longest());
                let count = node.fairlead(&["service", "list", "-o", "json"]).stdout.matches("\"load/").count();
                if count >= OBJECTS / 3 { Ok(()) } else { Err(count) }
            });
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            most
        });
        while count < NAMES || !done.load(std::sync::atomic::Ordering::Relaxed) && count < 250 * 250 {
            let (b, c) = (count / 250, count % 250 + 1);
            let ip = format!("198.18.{b}.{c}");
            match stage.ask(0, Transport::Udp, &format!("n{b}-{c}.busy.example A")) {
                Ok(answer) if answer == told(&[&ip]) => {
                    closed.extend(stage.is_open(0, &ip, true).err());
                }
                other => late.push(format!("{ip}: {other:?}")),
            }
            count += 1;
        }
        applying.join().unwrap()
    });
    println!("{count} names were asked for, the longest step of the agent took {took} microseconds");
    println!(
        "{}",
        scrape(&stage.servers[0]).lines().filter(|line| line.contains("policy_")).collect::<Vec<_>>().join("\n")
    );
    assert!(took > 50_000, "the agent was not busy: {took} microseconds");
    assert!(closed.is_empty(), "answered before they are open: {closed:?}");
    // On a machine that does much else the DNS server itself may be kept from running for as long as it waits: such answers are no
    // more than that. All that come while the loop works would be.
    assert!(late.len() * 10 <= count, "{} of {count} late: {late:?}", late.len());
    // What nobody was told is closed, and what a policy has no more is so, whatever was told meanwhile.
    stage.is_open(0, "198.18.255.2", false).unwrap();
    stage.is_open(1, "198.18.0.1", false).unwrap();
    lab.apply(&POLICY.replace(", '*.busy.example'", ""));
    lab.wait_until("the names are closed", || stage.is_open(0, "198.18.0.1", false));
    for n in [1, 2, 3, 100, 200] {
        stage.is_open(0, &format!("198.18.1.{n}"), false).unwrap();
    }
}

#[test]
fn p78_answers_from_elsewhere_open_nothing() {
    let stage = Stage::new();
    // Of another server: the world's own.
    let world = SocketAddr::from((stage.lab.node("node-1").v4(), 5353));
    let own = stage.pods[0].via(Via::Packet);
    assert_eq!(ask(&own, world, Transport::Udp, "one.example A").unwrap(), told(&["192.0.2.100"]));
    stage.is_open(0, "192.0.2.100", false).unwrap();
    // Of another node's server, since the node's own is gone.
    let elsewhere = "fairlead_dns_policy_elsewhere_total";
    stage.processes[1].kill(9);
    stage.kube_dns(&[false, true]);
    stage.lab.wait_until("the other node's server answers", || match stage.ask(0, Transport::Udp, "other.example A") {
        Ok((ResponseCode::NoError, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let before = stage.metric(1, elsewhere);
    assert_eq!(stage.ask(0, Transport::Udp, "one.example A").unwrap(), told(&["192.0.2.100"]));
    stage.is_open(0, "192.0.2.100", false).unwrap();
    assert!(stage.metric(1, elsewhere) > before, "it is counted");
}

#[test]
fn d48_p88_names_of_a_policy_in_audit_mode_count_and_hold_nobody_up() {
    let stage = Stage::new();
    let node = stage.lab.node("node-1");
    let audited = "metadata: {name: names, annotations: {fairlead.io/mode: audit}}";
    stage.lab.apply(&POLICY.replace("metadata: {name: names}", audited));
    stage.lab.wait_until("the policy is not in force", || stage.is_open(0, "192.0.2.100", true));
    let number = std::cell::Cell::new(0);
    stage.lab.wait_within(Duration::from_secs(40), "the server knows the names", || {
        number.set(number.get() + 1);
        let process = node.spawn(&format!("rules-{}", number.get()), &["cat", "/run/fairlead/names/rules.json"], &[]);
        let _ended = process.wait(Duration::from_secs(10));
        let rules: serde_json::Value = serde_json::from_str(process.log().trim()).unwrap_or_default();
        let has = |part: &str| rules[part].as_object().is_some_and(|clients| !clients.is_empty());
        if has("audited") && !has("clients") { Ok(()) } else { Err(rules) }
    });
    // The server looks for a change of the file every 50 ms.
    stage.lab.wait_until("the agent has been told", || {
        assert_eq!(stage.ask(0, Transport::Udp, "long.example A").unwrap(), told(&["172.18.0.100"]));
        let told = node.fairlead(&["policy", "explain", "--from", "app/a", "--to", "172.18.0.100:80"]).stdout;
        if told.contains("allowed") && !told.contains("audit mode") { Ok(()) } else { Err(told) }
    });
    // What it was told for the name is not found, what it was not is.
    let mut open = [stage.connect(0, "172.18.0.100"), stage.connect(0, "192.0.2.100")];
    let found = || node.fairlead(&["-o", "json", "policy", "audit"]).stdout;
    stage.lab.wait_within(Duration::from_secs(40), "the audit finds a flow", || {
        open.iter_mut().for_each(|open| drop(open.exchange(10, 10).unwrap()));
        let found = found();
        if found.contains("192.0.2.100") { Ok(()) } else { Err(found) }
    });
    assert!(!found().contains("172.18.0.100"), "{}", found());
    // Without the agent every answer is given.
    node.agent().kill9();
    for question in ["one.example A", "x.wild.example A", "long.example A"] {
        let (code, addresses) = stage.ask(0, Transport::Udp, question).unwrap();
        assert!(code == ResponseCode::NoError && addresses.len() == 1, "{question}: {code} {addresses:?}");
    }
}
