//! fairlead-dns beside CoreDNS: one API server, one Corefile, one upstream server, and many questions to both; once with
//! rules alone, and once with everything that kubeadm's Corefile has besides, the cache among it. Where they differ, `tests/behaviour/dns.md` has it with its reason, and nowhere else.

mod differences;
pub(crate) mod questions;
mod said;
mod upstream;
pub(crate) mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::control::{ADMIN, Control, FIRST, part};
use differences::LISTED;
use hickory_proto::rr::RecordType;
use questions::{Question, Transport};
use said::{Entry, Said};
use world::Besides;

const COREDNS: u16 = 1053;
const FAIRLEAD: u16 = 1054;

/// How many differences of a kind are shown.
const EXAMPLES: usize = 6;

/// A DNS server. It ends with the test.
pub(crate) struct Server {
    child: Child,
    port: u16,
}

impl Server {
    pub(crate) fn start(dir: &Path, name: &str, program: &Path, args: &[&str], port: u16) -> Self {
        let log = fs::File::create(dir.join(format!("{name}.log"))).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { child, port };
        let begin = Instant::now();
        let (first, last) =
            (Question::plain("web.shop.svc.cluster.local", 1), Question::plain("last.shop.svc.cluster.local", 1));
        while [&first, &last].iter().any(|question| !server.ask(question).has_answers()) {
            let log = || fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
            assert!(begin.elapsed() < Duration::from_secs(60), "{name} does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    pub(crate) fn ask(&self, question: &Question) -> Said {
        let address: IpAddr = if question.over_v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        said::ask(SocketAddr::new(address, self.port), question)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The differences that the page lists: the first cells of its table.
fn on_the_page() -> BTreeSet<String> {
    let page = fairlead_tree::path("tests/behaviour/dns.md").expect("tests run in a work tree");
    let text = fs::read_to_string(page).unwrap();
    let (_, table) = text.split_once("## Beside CoreDNS").expect("the page has the table");
    let cell = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    table.lines().filter_map(cell).collect()
}

/// The records of a zone, as it is transferred here, that CoreDNS does not answer to who asks for them: in transfers the two
/// differ in what they list, and in answers they do not.
fn not_answered(zone: &str, ours: &Server, theirs: &Server) -> Option<String> {
    let over_tcp = |name: &str, kind| Question { transport: Transport::Tcp, ..Question::plain(name, kind) };
    let whole = ours.ask(&over_tcp(zone, RecordType::AXFR.into())).answers;
    assert!(whole.len() > 20, "{zone} is transferred: {whole:?}");
    // The serials are each server's own.
    let records = whole.iter().filter(|entry| entry.kind != "SOA");
    let strange = records.filter(|entry| {
        // An alias is found by who asks for addresses; one to a name that does not exist, by who asks for aliases.
        let kind: RecordType = entry.kind.parse().unwrap();
        let kinds = if kind == RecordType::CNAME { vec![RecordType::A, kind] } else { vec![kind] };
        // CoreDNS' cache gives an owner as whoever asked first spelled it.
        let is_same = |other: &Entry| {
            other.owner.eq_ignore_ascii_case(&entry.owner) && (&other.kind, &other.data) == (&entry.kind, &entry.data)
        };
        let says = |kind: &RecordType| {
            theirs.ask(&over_tcp(entry.owner.trim_end_matches('.'), (*kind).into())).answers.iter().any(is_same)
        };
        !kinds.iter().any(says)
    });
    let strange: Vec<String> =
        strange.map(|Entry { owner, kind, data, .. }| format!("{owner} {kind} {data}")).collect();
    (!strange.is_empty()).then(|| strange.join("\n"))
}

/// What came of questions to both.
#[derive(Default)]
struct Found {
    asked: usize,
    /// Listed differences that there were.
    occurred: BTreeSet<&'static str>,
    /// Others: by the parts in which they are, and what was asked.
    unlisted: BTreeMap<String, BTreeMap<String, String>>,
}

impl Found {
    fn add(&mut self, parts: &str, asked: String, example: String) {
        self.unlisted.entry(parts.to_owned()).or_default().insert(asked, example);
    }

    /// Asks both.
    fn compare(&mut self, question: &Question, fairlead: &Server, coredns: &Server) {
        self.asked += 1;
        let (ours, theirs) = (fairlead.ask(question), coredns.ask(question));
        // What is equal without one of them is not told by that one.
        let erased = |left_out: Option<&str>| {
            let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
            for listed in LISTED.iter().filter(|listed| Some(listed.name) != left_out) {
                (listed.erase)(question, &mut ours, &mut theirs);
            }
            (ours, theirs)
        };
        if ours == theirs {
            return;
        }
        let (last_ours, last_theirs) = erased(None);
        if last_ours == last_theirs {
            self.occurred.extend(LISTED.iter().map(|listed| listed.name).filter(|name| {
                let (ours, theirs) = erased(Some(name));
                ours != theirs
            }));
            return;
        }
        let only = [last_ours.only(&last_theirs), last_theirs.only(&last_ours)];
        let example = format!("{question}\n  here:    {ours}\n  CoreDNS: {theirs}\n  left of that: {only:?}");
        let asked = format!("{} {}", question.name.to_lowercase(), question.kind);
        self.add(&last_ours.parts(&last_theirs).join(", "), asked, example);
    }

    /// Every difference is listed, and every one that is listed was there.
    fn check(&self) {
        let told = |(parts, examples): (&String, &BTreeMap<String, String>)| {
            let some: Vec<&str> = examples.values().map(String::as_str).take(EXAMPLES).collect();
            format!("{parts} of {:?}: {}", examples.keys().collect::<Vec<_>>(), some.join("\n"))
        };
        let report: Vec<String> = self.unlisted.iter().map(told).collect();
        println!("{} questions, differences that occurred: {:?}", self.asked, self.occurred);
        assert!(report.is_empty(), "differences that are not listed:\n{}", report.join("\n"));
        let gone: Vec<&str> =
            LISTED.iter().map(|listed| listed.name).filter(|name| !self.occurred.contains(name)).collect();
        assert!(gone.is_empty(), "listed, and no difference any more: {gone:?}");
    }
}

#[test]
fn every_difference_from_coredns_is_on_the_page() {
    let listed: BTreeSet<String> = LISTED.iter().map(|listed| listed.name.to_owned()).collect();
    assert_eq!(listed, on_the_page());
    assert_eq!(listed.len(), LISTED.len(), "each once");
}

#[test]
#[ignore = "it builds CoreDNS, and asks for minutes: `cargo xtask test --full`"]
fn d39_answers_are_those_of_coredns_but_for_what_is_listed() {
    let mut control = Control::new("beside");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        control.serve(FIRST, &[FIRST], &["--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112"]).await;
        world::fill(&control.cluster(ADMIN, FIRST).client().await).await;
    });
    let upstream = upstream::serve();
    let (dir, kubeconfig) = (control.dir().to_owned(), control.kubeconfig(ADMIN, FIRST, "").display().to_string());
    let mut found = Found::default();
    for besides in [Besides::Nothing, Besides::Kubeadm] {
        let write = |name: &str, more: &str| {
            let path = dir.join(name);
            fs::write(&path, world::corefile(COREDNS, upstream, besides, more)).unwrap();
            path.display().to_string()
        };
        let theirs = write("Corefile.coredns", &format!("kubeconfig {kubeconfig}"));
        let ours = write("Corefile", "");
        let coredns = Server::start(&dir, "coredns", &part("coredns"), &["-conf", &theirs], COREDNS);
        let program = fairlead_tests::binary("fairlead-dns").unwrap();
        let at = |flag: &str, address: &str, port: u16| [format!("--{flag}"), format!("{address}:{port}")];
        let mut places = [at("listen", "127.0.0.1", FAIRLEAD), at("listen", "[::1]", FAIRLEAD)].concat();
        for (flag, port) in [("health-bind", 2080), ("ready-bind", 2181), ("metrics-bind", 2153)] {
            places.extend(at(flag, "127.0.0.1", port));
        }
        let mut args = vec!["--corefile", &ours, "--kubeconfig", &kubeconfig];
        args.extend(places.iter().map(String::as_str));
        let fairlead = Server::start(&dir, "fairlead-dns", &program, &args, FAIRLEAD);
        for question in questions::all() {
            found.compare(&Question { kept: besides == Besides::Kubeadm, ..question }, &fairlead, &coredns);
        }
        for zone in ["cluster.local", "out.example"] {
            if let Some(strange) = not_answered(zone, &fairlead, &coredns) {
                found.add("transfers that are no answers", format!("{zone} {besides:?}"), strange);
            }
        }
    }
    found.check();
}
