//! What alerts and panels of the component `monitoring` ask for is in what the programs serve: every metric, every label, and
//! every value that a label has to have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use fairlead_datapath::drop::DropReason;
use fairlead_tests::promql::{self, Matcher, Query};
use fairlead_tests::{Lab, Probes, binary};
use serde_json::Value;

use super::{ask, is};

/// What others serve: Prometheus itself, and kube-state-metrics.
const OF_OTHERS: [&str; 2] = ["up", "kube_node_info"];

/// What a lab can't have, with its label: there is no API server, and no table is nearly full. That they are served is compared
/// with the code, as all names in `agent/ARCHITECTURE.md` are.
const NOT_HERE: [(&str, &str); 2] = [("fairlead_watch_age_seconds", "kind"), ("fairlead_table_nearly_full", "table")];

/// What Prometheus puts on every series.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

/// Values of labels by label, of a metric.
type Labels = BTreeMap<String, BTreeSet<String>>;

fn objects(name: &str) -> Vec<Value> {
    let path = fairlead_tree::path("manifests/components/monitoring").unwrap().join(name);
    serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Every query, by where it is.
fn queries() -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rules = objects("rules.yaml").remove(0);
    let groups = rules["spec"]["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    let mut found: Vec<_> = rules.map(|rule| (text(&rule["alert"]), text(&rule["expr"]))).collect();
    let map = objects("dashboard.yaml").remove(0);
    let dashboard: Value = serde_json::from_str(map["data"]["fairlead.json"].as_str().unwrap()).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap().iter();
        found.extend(targets.map(|target| (text(&panel["title"]), text(&target["expr"]))));
    }
    found
}

/// Labels that relabelling gives, with their values where it says those.
fn target_labels() -> Labels {
    let mut found: Labels = OF_PROMETHEUS.iter().map(|label| ((*label).to_owned(), BTreeSet::new())).collect();
    for monitor in objects("scrape.yaml") {
        let spec = &monitor["spec"];
        let endpoints = spec["podMetricsEndpoints"].as_array().or(spec["endpoints"].as_array()).unwrap();
        for rule in endpoints.iter().flat_map(|endpoint| endpoint["relabelings"].as_array().unwrap()) {
            let values = found.entry(rule["targetLabel"].as_str().unwrap().to_owned()).or_default();
            values.extend(rule["replacement"].as_str().map(str::to_owned));
        }
    }
    found
}

/// The series of a scrape in the text format.
fn series(text: &str) -> BTreeMap<String, Labels> {
    let mut found: BTreeMap<String, Labels> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}")));
        let labels = found.entry(name.to_owned()).or_default();
        if rest.starts_with('{') {
            let end = rest.rfind('}').unwrap_or_else(|| panic!("{line}"));
            let query =
                promql::read(&format!("{name}{}", &rest[..=end])).unwrap_or_else(|error| panic!("{line}: {error}"));
            for Matcher { label, value, .. } in &query.selectors[0].matchers {
                labels.entry(label.clone()).or_default().insert(value.clone());
            }
        }
    }
    found
}

/// What is wrong with a query.
fn problems(query: &Query, served: &BTreeMap<String, Labels>, target: &Labels) -> Vec<String> {
    let mut found = Vec::new();
    let mut known: BTreeSet<&str> = target.keys().map(String::as_str).collect();
    let mut of_others = false;
    for selector in &query.selectors {
        let of_programs = served.get(&selector.name);
        let is_foreign = OF_OTHERS.contains(&selector.name.as_str());
        of_others |= is_foreign;
        if of_programs.is_none() && !is_foreign {
            found.push(format!("nobody serves {}", selector.name));
        }
        known.extend(of_programs.into_iter().flat_map(BTreeMap::keys).map(String::as_str));
        for Matcher { label, operator, value } in &selector.matchers {
            let values = of_programs.and_then(|labels| labels.get(label)).or(target.get(label));
            let Some(values) = values else {
                found.push(format!("{} has no label {label}", selector.name));
                continue;
            };
            let alternatives: Vec<&str> =
                if operator.ends_with('~') { value.split('|').collect() } else { vec![value] };
            let missing = alternatives.iter().filter(|value| !values.is_empty() && !values.contains(**value));
            found.extend(missing.map(|value| format!("{label} of {} is never {value:?}", selector.name)));
        }
    }
    let unknown = query.grouping.iter().filter(|label| !of_others && !known.contains(label.as_str()));
    found.extend(unknown.map(|label| format!("nothing has the label {label}, by which it groups")));
    found
}

#[test]
fn s53_alerts_and_panels_find_their_metrics_in_a_scrape() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let pod = node.pod("shop/web").tcp(8080).start();
    let dns = binary("fairlead-dns").unwrap().display().to_string();
    let objects = lab.objects().directory().display().to_string();
    let resolver = format!("{}:5353", node.v4());
    let _dns = node.spawn("dns", &[&dns, "--objects", &objects, "--listen", &resolver, "--upstream", "192.0.2.1"], &[]);
    // Something is dropped, since reasons are counted from the first on.
    let [a, b, c, _] = pod.v4().octets();
    pod.tcp([a, b, c, 250], 80).unwrap_err();
    let scrape = |port: u16| is(ask(&**node, [127, 0, 0, 1], port, "/metrics"), 200).map(|answer| answer.body);
    let target = target_labels();
    let queries = queries();
    assert!(queries.len() > 20, "{queries:?}");
    lab.wait_until("every query finds what it asks for", || {
        let mut served = series(&scrape(10249)?);
        for (name, labels) in series(&scrape(9153)?) {
            let known = served.entry(name).or_default();
            labels.into_iter().for_each(|(label, values)| known.entry(label).or_default().extend(values));
        }
        for (name, label) in NOT_HERE {
            let labels: Labels = [(label.to_owned(), BTreeSet::new())].into();
            let twice = served.insert(name.to_owned(), labels);
            assert_eq!(twice, None, "{name} is here");
        }
        // All that there are, not those alone that were counted here.
        let drops = served.get_mut("fairlead_drops_total").ok_or("no drops yet")?;
        drops
            .entry("reason".to_owned())
            .or_default()
            .extend(DropReason::ALL.iter().map(|reason| reason.as_str().to_owned()));
        let mut wrong = Vec::new();
        for (place, text) in &queries {
            let query = promql::read(text).unwrap_or_else(|error| panic!("{place}: {error}: {text}"));
            wrong.extend(problems(&query, &served, &target).into_iter().map(|what| format!("{place}: {what}")));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    });
}

#[test]
fn what_a_query_asks_for_in_vain_is_told() {
    let served = series(
        "# TYPE drops counter\ndrops{reason=\"a\"} 1\ndrops{reason=\"b\"} 2\nfill{table=\"T\"} 1 1700000000\nplain 3\n",
    );
    let target: Labels =
        [("job".to_owned(), BTreeSet::from(["kube-proxy".to_owned()])), ("node".to_owned(), BTreeSet::new())].into();
    let wrong = |text: &str| problems(&promql::read(text).unwrap(), &served, &target);
    for fine in [
        "drops{reason=~\"a|b\", job=\"kube-proxy\", node=\"n\"}",
        "max by (table, node) (fill) > 1",
        "plain",
        "sum by (x) (up)",
    ] {
        assert_eq!(wrong(fine), [""; 0], "{fine}");
    }
    assert_eq!(wrong("drop"), ["nobody serves drop"]);
    assert_eq!(wrong("drops{cause=\"a\"}"), ["drops has no label cause"]);
    assert_eq!(wrong("drops{reason=\"c\"}"), ["reason of drops is never \"c\""]);
    assert_eq!(wrong("drops{reason=~\"a|c\"}"), ["reason of drops is never \"c\""]);
    assert_eq!(wrong("up{job=\"kubeproxy\"}"), ["job of up is never \"kubeproxy\""]);
    assert_eq!(wrong("sum by (reason) (fill)"), ["nothing has the label reason, by which it groups"]);
}
