use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::WireName;
use crate::files::{Files, matches};
use crate::forward::Policy;
use crate::plan::{OverPlan, Plan, Source, Target};
use crate::site::acl::{Verdict, judge};
use crate::site::dns64::{Dns64, Prefix};
use crate::site::external::External;
use crate::site::rewrite;
use crate::site::scope::Fall;
use crate::site::transfer::may;
use crate::wire::RecordType;
use crate::zone::PodMode;

mod servers;

use servers::servers;

/// Files in memory.
#[derive(Default)]
struct Memory(BTreeMap<String, String>);

impl Memory {
    fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }
}

impl Files for Memory {
    fn text(&self, path: &Path) -> io::Result<String> {
        self.0.get(&*path.to_string_lossy()).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        let inside = |path: &String| {
            let path = Path::new(path);
            (path.parent() == Some(directory)).then(|| path.file_name().unwrap().to_string_lossy().into_owned())
        };
        Ok(self.0.keys().filter_map(inside).collect())
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "ZONE").then(|| "cluster.local".to_owned())
    }
}

fn planned(files: &[(&str, &str)]) -> Result<Plan, String> {
    let corefile = Corefile::read(Path::new("/c/Corefile"), &Memory::of(files)).map_err(|error| error.to_string())?;
    translate(&corefile, 100).map_err(|error| error.to_string())
}

fn plan(text: &str) -> Plan {
    planned(&[("/c/Corefile", text)]).unwrap()
}

fn mistake(text: &str) -> String {
    planned(&[("/c/Corefile", text)]).unwrap_err()
}

/// A block for everything with the cluster's zone and these lines.
fn with(lines: &str) -> String {
    format!(".:53 {{\nkubernetes cluster.local in-addr.arpa ip6.arpa\n{lines}\n}}\n")
}

fn name(text: &str) -> WireName {
    WireName::parse(text).unwrap()
}

#[test]
fn d39_d40_distributions_files_are_read_as_they_are() {
    for (distribution, text, ttl, lameduck, templates) in [
        ("kubeadm", include_str!("../../tests/corefiles/kubeadm"), 30, 5, 0),
        ("kind", include_str!("../../tests/corefiles/kind"), 30, 5, 0),
        ("minikube", include_str!("../../tests/corefiles/minikube"), 30, 5, 0),
        ("k3s", include_str!("../../tests/corefiles/k3s"), 5, 0, 0),
        ("aks", include_str!("../../tests/corefiles/aks"), 30, 5, 2),
        ("eks", include_str!("../../tests/corefiles/eks"), 5, 5, 0),
    ] {
        let plan = plan(text);
        assert_eq!((plan.ttl, plan.options.pods), (ttl, PodMode::Insecure), "{distribution}");
        assert_eq!(plan.lameduck.unwrap_or_default(), Duration::from_secs(lameduck), "{distribution}");
        assert_eq!(plan.metrics.unwrap().port(), 9153, "{distribution}");
        let [block] = &plan.blocks[..] else { panic!("{distribution} has one block") };
        assert_eq!(block.rules.zones, [name(".")], "{distribution}");
        let cluster = block.rules.cluster.as_ref().unwrap();
        assert_eq!(*cluster, crate::site::Cluster::usual(&name("cluster.local")), "{distribution}");
        assert_eq!(block.rules.templates.len(), templates, "{distribution}");
        let [forward] = &block.forwards[..] else { panic!("{distribution} forwards once") };
        let file = Target { source: Source::File("/etc/resolv.conf".into()), over: OverPlan::Udp };
        assert_eq!(forward.to, [file], "{distribution}");
        assert_eq!((forward.cache.ttl, forward.cache.denial, forward.policy), (30, 30, Policy::Random));
        // What is not named is not done.
        assert_eq!((forward.cache.stale, forward.cache.prefetch), (0, false), "{distribution}");
        assert_eq!(block.rules.log.len(), usize::from(distribution == "minikube"), "{distribution}");
        let has_hosts = matches!(distribution, "minikube" | "k3s");
        assert_eq!(!block.rules.hosts.zones.is_empty(), has_hosts, "{distribution}");
    }
}

#[test]
fn imports_and_snippets_stand_where_they_are_named() {
    let plan = planned(&[
        ("/c/Corefile", "(common) {\n errors\n cache 7 # kept\n}\n. {\nkubernetes {$ZONE}\nimport custom/*.override\nimport common\nimport more\n}\nimport custom/*.server"),
        ("/c/custom/b.override", "log"),
        ("/c/custom/a.override", "rewrite name a b\nforward . 192.0.2.1"),
        ("/c/custom/..data", "no"),
        ("/c/custom/x.server", "corp.example {\nforward . 192.0.2.2\n}"),
        ("/c/more", "hosts /h {\n192.0.2.3 x\n}\n"),
    ])
    .unwrap();
    let [all, corp] = &plan.blocks[..] else { panic!("{plan:?}") };
    assert_eq!((all.rules.rewrites.len(), all.rules.log.len(), all.forwards[0].cache.ttl), (1, 1, 7));
    assert!(!all.hosts.inline.is_empty());
    assert_eq!(corp.rules.zones, [name("corp.example")]);
    assert_eq!((&corp.rules.cluster, corp.forwards[0].cache.bytes), (&None, 0));
    assert_eq!(plan.origin, name("cluster.local"));
}

#[test]
fn one_block_needs_no_braces() {
    let plan = plan(".:1053\nkubernetes cluster.local\nforward . 192.0.2.1\n");
    assert_eq!((plan.port, plan.blocks.len(), plan.blocks[0].forwards.len()), (1053, 1, 1));
}

#[test]
fn quotes_and_comments_are_as_in_coredns() {
    let text = with("# log {\ntemplate IN TXT x { # why\n answer \"x. 5 IN TXT \\\"a # b\\\"\"\n}\n");
    let plan = plan(&text);
    let filled = crate::site::template::answer(
        &plan.blocks[0].rules.templates,
        name("x").as_wire(),
        name("x").as_wire(),
        RecordType::TXT,
    );
    assert!(filled.unwrap().sections[0][0].to_string().contains("a # b"));
}

#[test]
fn options_of_kubernetes_are_taken() {
    let text = ". {\nkubernetes cluster.local 10.0.0.0/8 2001:db8::/32 {\npods verified\nendpoint_pod_names\nnamespaces a b\n\
                labels app in (a, b)\nttl 60\nnoendpoints\nignore empty_service\nfallthrough\nresyncperiod 5m\n}\n}";
    let plan = plan(text);
    let options = &plan.options;
    assert_eq!((options.pods, options.endpoint_pod_names, plan.ttl), (PodMode::Verified, true, 60));
    assert_eq!((options.endpoints, options.empty_services), (false, false));
    assert!(options.has("a") && options.has("b") && !options.has("c"));
    assert_eq!(plan.labels.as_deref(), Some("app in (a, b)"));
    let cluster = plan.blocks[0].rules.cluster.as_ref().unwrap();
    assert_eq!(cluster.reverse, [name("10.in-addr.arpa"), name("8.b.d.0.1.0.0.2.ip6.arpa")]);
    assert_eq!(cluster.fall, Fall::Everywhere);
    assert!(
        plan.notes.iter().any(|note| note.contains("/c/Corefile:11: resyncperiod has no effect")),
        "{:?}",
        plan.notes
    );
    // What is not said is as CoreDNS has it.
    let plan = self::plan(". {\nkubernetes cluster.local\n}");
    assert_eq!((plan.options.pods, plan.ttl), (PodMode::Disabled, 5));
    assert_eq!(plan.blocks[0].rules.cluster.as_ref().unwrap().fall, Fall::Nowhere);
}

#[test]
fn other_plugins_are_taken() {
    let text = with(
        "bind 10.0.0.1 ::1\nforward corp.example tls://192.0.2.1 tls://[2001:db8::1]:854 {\ntls_servername dns.example\n\
         except a.corp.example\npolicy sequential\n}\nforward . 192.0.2.2:5353 /etc/resolv.conf\n\
         cache 60 {\nsuccess 100 50\ndenial 100 5\nprefetch 10\nserve_stale 1h\n}\n\
         acl corp.example {\nallow net 10.0.0.0/8\nfilter type A AAAA\nblock\n}\n\
         log example.org \"{remote} {name}\" {\nclass denial error\n}\nready 127.0.0.1:8181\n",
    );
    let plan = plan(&text);
    let block = &plan.blocks[0];
    let [corp, rest] = &block.forwards[..] else { panic!() };
    let over_tls = "over Tls(\"dns.example\")";
    assert_eq!(
        servers(corp),
        [format!("Server(192.0.2.1:853) {over_tls}"), format!("Server([2001:db8::1]:854) {over_tls}")]
    );
    assert_eq!((corp.except.len(), corp.policy), (1, Policy::Sequential));
    assert_eq!(servers(rest), ["Server(192.0.2.2:5353) over Udp", "File(\"/etc/resolv.conf\") over Udp"]);
    let cache = &rest.cache;
    assert_eq!((cache.ttl, cache.denial, cache.prefetch, cache.stale), (50, 5, true, 3600));
    let judged =
        |asked: &str, kind, client: &str| judge(&block.rules.acl, name(asked).as_wire(), kind, client.parse().unwrap());
    assert_eq!(judged("corp.example", RecordType::A, "10.1.1.1"), Verdict::Allow);
    assert_eq!(judged("corp.example", RecordType::A, "192.0.2.1"), Verdict::Filter);
    assert_eq!(judged("corp.example", RecordType::TXT, "192.0.2.1"), Verdict::Block);
    assert_eq!(judged("other.example", RecordType::TXT, "192.0.2.1"), Verdict::Allow);
    let [log] = &block.rules.log[..] else { panic!() };
    assert_eq!(
        (&log.zones[..], log.format.as_str(), log.kinds.success),
        (&[name("example.org")][..], "{remote} {name}", false)
    );
    assert_eq!(plan.bind.len(), 2);
    assert_eq!(plan.ready.unwrap().port(), 8181);
}

#[test]
fn d39_every_plugin_of_coredns_is_taken_or_refused_by_name() {
    // Those of CoreDNS 1.15.
    let names = "root metadata geoip cancel proxyproto quic grpc_server https https3 timeouts multisocket reload nsid bufsize \
                 bind debug trace ready health pprof shed prometheus errors log dnstap local dns64 siit any chaos loadbalance \
                 tsig rewrite autopath acl cache header dnssec tls minimal template transfer dynupdate hosts route53 azure \
                 clouddns k8s_external kubernetes file auto secondary etcd loop forward grpc erratic whoami on sign view nomad";
    for name in names.split_whitespace() {
        let Err(found) = planned(&[("/c/Corefile", &with(name))]) else { continue };
        assert!(!found.contains("there is no plugin"), "{found}");
        let words = ["remove", "use", "write", "needs", "serve", "takes", "twice", "no destination"];
        assert!(words.iter().any(|word| found.contains(word)), "{found}");
    }
}

#[test]
fn plugins_for_the_outside_are_taken() {
    let plan = plan(&with(
        "k8s_external example.org 10.0.0.0/8 {\napex NS\nttl 60\nheadless\nfallthrough example.org\n}\n\
         transfer cluster.local {\nto 192.0.2.1 [2001:db8::1]:5353\nto 192.0.2.2:53\n}\ntransfer example.org {\nto *\nsource 192.0.2.9\n}\n\
         dns64 2001:db8::/32 {\ntranslate_all\nallow_ipv4\n}\n",
    ));
    let rules = &plan.blocks[0].rules;
    let External { zones, apex, ttl, headless, fall } = rules.external.as_ref().unwrap();
    assert_eq!(zones[..], [name("example.org"), name("10.in-addr.arpa")]);
    assert_eq!((apex.as_str(), *ttl, *headless), ("ns", 60, true));
    assert_eq!(*fall, Fall::In(vec![name("example.org")]));
    assert!(plan.options.outside);
    let Dns64 { prefix, all, over_v4 } = rules.dns64.unwrap();
    assert_eq!((prefix.to_string().as_str(), all, over_v4), ("2001:db8::/32", true, true));
    let may = |zone, client: &str| may(&rules.transfers, name(zone).as_wire(), client.parse().unwrap());
    assert!(["192.0.2.1", "2001:db8::1", "192.0.2.2"].iter().all(|client| may("cluster.local", client)));
    assert!(!may("cluster.local", "192.0.2.3") && may("example.org", "192.0.2.3") && !may("example", "192.0.2.1"));
    assert!(plan.notes.iter().any(|note| note.contains("source has no effect")), "{:?}", plan.notes);
    // What is not said is as CoreDNS has it.
    let plan = self::plan(&with("k8s_external example.org\ndns64"));
    let rules = &plan.blocks[0].rules;
    let external = rules.external.as_ref().unwrap();
    assert_eq!(
        (external.apex.as_str(), external.ttl, external.headless, &external.fall),
        ("dns", 5, false, &Fall::Nowhere)
    );
    assert_eq!(rules.dns64, Some(Dns64 { prefix: Prefix::WELL_KNOWN, all: false, over_v4: false }));
    assert!(rules.transfers.is_empty() && !self::plan(&with("log")).options.outside);
}

#[test]
fn rules_in_braces_are_rules() {
    let plan = plan(&with("rewrite stop {\nname regex (.*)\\.a {1}.b\nanswer name (.*)\\.b {1}.a\n}\n"));
    let rewritten = rewrite::rewrite(&plan.blocks[0].rules.rewrites, name("x.a").as_wire(), RecordType::A);
    assert_eq!(rewritten.unwrap().unwrap().name, name("x.b"));
}

#[test]
fn d39_mistakes_have_a_place_and_a_remedy() {
    for (text, place, words) in [
        (with("autopath @kubernetes"), ":3:", "autopath is not supported: remove it"),
        (with("nonsense"), ":3:", "no plugin \"nonsense\""),
        (with("dnssec"), ":3:", "dnssec is not supported"),
        (with("dns64 10.0.0.0/8"), ":3:", "not a prefix for NAT64"),
        (with("dns64 {\nprefix 64:ff9b::/72\n}"), ":4:", "not a prefix for NAT64"),
        (with("dns64 {\nall\n}"), ":4:", "translate_all"),
        (with("dns64\ndns64"), ":4:", "twice"),
        (with("k8s_external example.org {\napex a.b\n}"), ":4:", "one label"),
        (with("k8s_external example.org {\nttl 3601\n}"), ":4:", "0 to 3600"),
        (with("k8s_external example.org {\nnonsense\n}"), ":4:", "headless"),
        (with("log") + "example.org {\nk8s_external\n}", ":6:", "block with kubernetes"),
        (with("transfer"), ":3:", "no destination"),
        (with("transfer {\nto\n}"), ":4:", "or * for all"),
        (with("transfer {\nto example.org\n}"), ":4:", "is not an address"),
        (with("transfer {\nfrom 192.0.2.1\n}"), ":4:", "no option \"from\""),
        (with("forward ."), ":3:", "needs a server"),
        (with("forward . dns.example"), ":3:", "neither an address nor a file"),
        (with("forward . 192.0.2.1 {\n\nnonsense 1\n}"), ":5:", "no option \"nonsense\""),
        (with("forward . 192.0.2.1 {\nnext\n}"), ":4:", "such as NXDOMAIN"),
        (with("forward . 192.0.2.1 {\nnext NONSENSE\n}"), ":4:", "\"NONSENSE\" is not a code"),
        (with("forward . 192.0.2.1 {\nfailover NOERROR\n}"), ":4:", "next_on_nodata"),
        (with("forward . 192.0.2.1 {\nsource_address 192.0.2.9\n}"), ":4:", "remove it"),
        (with("forward . 192.0.2.1 {\nresolver 192.0.2.9\n}"), ":4:", "write their addresses"),
        (with("forward . https://192.0.2.1"), ":3:", "not asked over https"),
        (with("forward . 192.0.2.1 {\ntls cert.pem key.pem\n}"), ":4:", "CA file only"),
        (with("cache {\nserve_stale_policy prefer_positive\n}"), ":4:", "remove it"),
        (with("cache {\nserve_stale 1h later\n}"), ":4:", "immediate or verify"),
        (with("cache {\nservfail 6m\n}"), ":4:", "5m"),
        (with("cache {\ndisable everything\n}"), ":4:", "success or denial"),
        (with("hosts {\nfallthrough_unsupported\n}"), ":3:", "needs fallthrough"),
        (with("loadbalance {\nprefer 10.0.0.0/8\n}"), ":4:", "no prefer"),
        (with("errors {\nnonsense\n}"), ":4:", "no option \"nonsense\""),
        (with("ready {\nmonitor often\n}"), ":4:", "until-ready"),
        (with("template IN A x {\nexpr true\n}"), ":4:", "no expr here"),
        (with("forward . tls://192.0.2.1%a.example {\ntls_servername a.example\n}"), ":3:", "one place"),
        (with("forward . 192.0.2.1%a.example"), ":3:", "neither an address"),
        (with("rewrite class CH IN"), ":3:", "only name, type and ttl"),
        (with("rewrite name regex ( x"), ":3:", "is not a regular expression"),
        (with("rewrite name suffix a b answer"), ":3:", "answer needs more"),
        (with("template IN A x {\nanswer \"{{ .Meta }} A 192.0.2.1\"\n}"), ":4:", ".Meta"),
        (with("cache 30 {\nnonsense\n}"), ":4:", "no option \"nonsense\""),
        (with("cache 0"), ":3:", "1 to 86400"),
        (with("log . \"{nothing}\""), ":3:", "{nothing}"),
        (with("acl {\nallow src 10.0.0.0/8\n}"), ":4:", "neither type nor net"),
        (with("hosts {\nnobody x\n}"), ":4:", "neither an address"),
        (with("bind eth0"), ":3:", "interfaces"),
        (with("kubernetes cluster.local"), ":3:", "twice"),
        (with("loadbalance weighted f"), ":3:", "\"weighted\" is not supported"),
        (with("log") + "example.org:5353 {\n}", ":5:", "port 5353 here, 53 at /c/Corefile:1"),
        (with("log") + "tls://example.org {\n}", ":5:", "--tls-bind"),
        (with("log") + ". {\n}", ":5:", "two server blocks"),
        (with("log") + "example.org {\nkubernetes other.local\n}", ":6:", "say the same as at /c/Corefile:2"),
        (". {\nkubernetes cluster.local {\npods maybe\n}\n}".to_owned(), ":3:", "insecure, verified or disabled"),
        (". {\nkubernetes cluster.local {\nendpoint https://x\n}\n}".to_owned(), ":3:", "--kubeconfig"),
        (". {\nkubernetes a.local b.local\n}".to_owned(), ":2:", "takes one zone"),
        (". {\nforward . 192.0.2.1\n}".to_owned(), ":1:", "kubernetes"),
        (with("errors {"), ":4:", "never closed"),
        ("\n. {\n} }".to_owned(), ":3:", "closes nothing"),
        (". {\nimport a b\n}".to_owned(), ":2:", "a line for each"),
        (". {\nimport missing\n}".to_owned(), ":2:", "can't import /c/missing"),
        (". {\nimport */x\n}".to_owned(), ":2:", "wildcards"),
        ("(a) {\nimport a\n}\n. {\nimport a\n}".to_owned(), ":2:", "too many imports"),
        (". {\nlog \"x\n}".to_owned(), ":2:", "quote"),
        ("{\nlog\n}".to_owned(), ":1:", "no zone"),
    ] {
        let found = mistake(&text);
        assert!(found.contains(&format!("/c/Corefile{place}")) && found.contains(words), "{text}\n{found}");
    }
    // In an imported file, it is that file's place.
    let files = [("/c/Corefile", ". {\nimport x.override\n}"), ("/c/x.override", "\n\nnonsense\n")];
    assert!(planned(&files).unwrap_err().starts_with("/c/x.override:3: "));
}

#[test]
fn patterns_are_those_of_a_shell() {
    for (pattern, name, is_like) in [
        ("*.server", "a.server", true),
        ("*.server", ".a.server", false),
        ("*.server", "a.server.bak", false),
        ("a?c*", "abcd", true),
        ("a*b*c", "axxbxxbxc", true),
        ("a*b*c", "axxbxxbx", false),
        ("*", "", true),
    ] {
        assert_eq!(matches(pattern, name), is_like, "{pattern} {name}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = planned(&[("/c/Corefile", &text)]);
    }

    #[test]
    fn any_words_are_read_or_refused(words in proptest::collection::vec(prop_oneof![
        Just("{"), Just("}"), Just("\n"), Just("\""), Just("#"), Just(","), Just("."), Just("import"), Just("(a)"), Just("a"),
        Just("kubernetes"), Just("cluster.local"), Just("forward"), Just("192.0.2.1"), Just("rewrite"), Just("name"),
        Just("regex"), Just("template"), Just("IN"), Just("ANY"), Just("answer"), Just("cache"), Just("30"), Just("{$ZONE}"),
        Just("hosts"), Just("log"), Just("acl"), Just("allow"), Just("net"), Just("fallthrough"), Just("custom/*"),
    ], 0..40)) {
        let text = words.join(" ");
        let _ = planned(&[("/c/Corefile", &text), ("/c/custom/x", &text)]);
    }
}
