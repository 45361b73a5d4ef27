//! Metrics under CoreDNS' names (plugin/metrics/vars, plugin/forward, plugin/pkg/proxy, plugin/kubernetes), and what
//! there is beside them.
//!
//! The zone label is `.`, as where kubeadm's configuration has one server for everything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use fairlead_dns::counter::Counter;
use fairlead_dns::forward::Server;
use fairlead_dns::forward::cache::{Cache, Counts};
use fairlead_dns::full::Responder;
use fairlead_dns::meter::{CODES, FAMILIES, MAKERS, PROGRAMMING, Reading, SIZES, Sums, TIMES, TYPES};
use fairlead_dns::names::WAITS;
use fairlead_observe::{Answer, Process, counter, counters, exposition, family, gauge, gauges, labels};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

use crate::health::Readiness;

/// Nanoseconds in a second.
const SECOND: f64 = 1e9;

/// Panics so far.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts panics from now on.
pub(crate) fn count_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        tell(info);
    }));
}

/// Answers `/metrics`.
pub(crate) struct Metrics {
    pub(crate) responder: Arc<Responder>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) process: Process,
}

impl Metrics {
    pub(crate) fn answer(&self, path: &str) -> Answer {
        if path != "/metrics" {
            return Answer::not_found();
        }
        let readings = self.responder.stats.meters.read();
        let mut families = queries(&readings);
        families.extend(self.coredns(&readings));
        families.extend(self.own());
        families.extend(self.process.collect());
        exposition(families)
    }

    fn coredns(&self, readings: &[Reading]) -> Vec<MetricFamily> {
        let stats = &self.responder.stats;
        let version = env!("CARGO_PKG_VERSION");
        let mut programming = Vec::new();
        for (kind, histogram) in
            [("cluster_ip", &stats.programming_cluster_ip), ("headless_with_selector", &stats.programming_headless)]
        {
            let mut sums = Sums::default();
            histogram.add_to(&mut sums);
            programming.extend(metric(&[("service_kind", kind)], &sums, &PROGRAMMING, SECOND));
        }
        let mut families = vec![
            gauges(
                "coredns_build_info",
                "A metric with a constant '1' value labeled by version, revision, and goversion from which CoreDNS was built.",
                [(vec![("version", version), ("revision", ""), ("goversion", "")], 1.0)],
            ),
            counter(
                "coredns_panics_total",
                "A metrics that counts the number of panics.",
                PANICS.load(Ordering::Relaxed) as f64,
            ),
            family(
                "coredns_kubernetes_dns_programming_duration_seconds",
                "Histogram of the time (in seconds) it took to program a dns instance.",
                MetricType::HISTOGRAM,
                programming,
            ),
            self.plugins(readings),
        ];
        let forwarders = self.responder.site().forwarders();
        if forwarders.is_empty() {
            return families;
        }
        let mut servers: Vec<_> = forwarders.iter().flat_map(|forwarder| forwarder.all_upstreams()).collect();
        // One in two places has one line.
        servers.sort_by_key(|server| server.address);
        servers.dedup_by_key(|server| server.address);
        let upstreams = servers.iter().flat_map(|upstream| {
            let to = upstream.address.to_string();
            CODES.iter().zip(&upstream.durations).filter_map(move |(code, histogram)| {
                let mut sums = Sums::default();
                histogram.add_to(&mut sums);
                metric(&[("proxy_name", "forward"), ("to", &to), ("rcode", code)], &sums, &TIMES, SECOND)
            })
        });
        families.extend([
            family(
                "coredns_proxy_request_duration_seconds",
                "Histogram of the time each request took.",
                MetricType::HISTOGRAM,
                upstreams.collect(),
            ),
            counter(
                "coredns_forward_max_concurrent_rejects_total",
                "Counter of the number of queries rejected because the concurrent queries were at maximum.",
                stats.forward_refused.get() as f64,
            ),
            // Servers that don't answer are asked all the same, after the others.
            counter(
                "coredns_forward_healthcheck_broken_total",
                "Counter of the number of complete failures of the healthchecks.",
                0.0,
            ),
        ]);
        families.extend(servers_of(&servers));
        let caches: Vec<&Cache> = forwarders.iter().map(|forwarder| forwarder.cache()).collect();
        families.extend(kept(&caches, readings));
        families
    }

    fn plugins(&self, readings: &[Reading]) -> MetricFamily {
        let forwards = !self.responder.site().forwarders().is_empty();
        let forward = forwards.then_some(["cache", "forward", "loop"]);
        let names: Vec<&str> = ["health", "kubernetes", "loadbalance", "prometheus", "ready"]
            .into_iter()
            .chain(forward.into_iter().flatten())
            .collect();
        let mut servers: Vec<String> = readings.iter().map(server).collect();
        servers.dedup();
        let of = |server| names.iter().map(move |name| (dimensions(server, &[("name", name)]), 1.0));
        let values: Vec<_> = servers.iter().flat_map(|server| of(server.as_str())).collect();
        gauges(
            "coredns_plugin_enabled",
            "A metric that indicates whether a plugin is enabled on per server and zone basis.",
            values,
        )
    }

    fn own(&self) -> Vec<MetricFamily> {
        let stats = &self.responder.stats;
        let number = |counter: &Counter| counter.get() as f64;
        let (names, synced) = {
            let zone = self.responder.zone.read().unwrap_or_else(PoisonError::into_inner);
            (zone.names().count(), zone.is_synced())
        };
        let ways =
            [("fast", &stats.fast), ("full", &stats.full), ("forward", &stats.forwarded), ("cache", &stats.cached)];
        let failures = [
            ("malformed", &stats.malformed),
            ("ignored", &stats.ignored),
            ("not_ready", &stats.not_ready),
            ("upstream", &stats.forward_failed),
            ("unsent", &stats.unsent),
        ];
        let flag = |is: bool| f64::from(u8::from(is));
        let policy = &self.responder.names.counters;
        let mut waits = Sums::default();
        policy.waits.add_to(&mut waits);
        vec![
            gauges(
                "fairlead_dns_build_info",
                "1, with the version as a label.",
                [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)],
            ),
            counters(
                "fairlead_dns_answers_total",
                "Queries by the path that answered them.",
                ways.map(|(way, count)| (vec![("way", way)], number(count))),
            ),
            counters(
                "fairlead_dns_failures_total",
                "Queries without a good answer, by reason.",
                failures.map(|(reason, count)| (vec![("reason", reason)], number(count))),
            ),
            counters(
                "fairlead_dns_tcp_connections_total",
                "TCP connections of clients by what became of them: accepted, evicted while idle, refused.",
                [
                    (vec![("outcome", "accepted")], number(&stats.tcp_connections)),
                    (vec![("outcome", "evicted")], number(&stats.tcp_evicted)),
                    (vec![("outcome", "refused")], number(&stats.tcp_refused)),
                ],
            ),
            counters(
                "fairlead_dns_policy_answers_total",
                "Answers for names that domainNames of the client's policies have, by what became of them.",
                [
                    (vec![("result", "in_force")], number(&policy.in_force)),
                    (vec![("result", "not_covered")], number(&policy.not_covered)),
                    (vec![("result", "refused")], number(&policy.refused)),
                    (vec![("result", "no_agent")], number(&policy.silent)),
                    (vec![("result", "crowded")], number(&policy.crowded)),
                ],
            ),
            family(
                "fairlead_dns_policy_wait_seconds",
                "Time that such an answer waited for the agent's word.",
                MetricType::HISTOGRAM,
                metric(&[], &waits, &WAITS, SECOND).into_iter().collect(),
            ),
            counter(
                "fairlead_dns_policy_elsewhere_total",
                "Answers for such names to clients that are not pods of this node: they open nothing.",
                number(&policy.elsewhere),
            ),
            gauge("fairlead_dns_names", "Names in the zone.", names as f64),
            gauge("fairlead_dns_source_synced", "1 if the first list of objects is complete.", flag(synced)),
            gauge("fairlead_dns_source_alive", "1 while changes of objects arrive.", flag(self.readiness.is_alive())),
        ]
    }
}

fn servers_of(servers: &[Arc<Server>]) -> [MetricFamily; 4] {
    let names: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let each = |value: fn(&Server) -> f64, more: &[(&'static str, &'static str)]| -> Vec<_> {
        let of = |(server, to): (&Arc<Server>, &String)| {
            let labels = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
            (labels.chain([("to", to.clone())]).collect::<Vec<_>>(), value(server))
        };
        servers.iter().zip(&names).map(of).collect()
    };
    let proxy = &[("proxy_name", "forward")];
    let udp = &[("proxy_name", "forward"), ("proto", "udp")];
    let sockets = |at: usize| -> fn(&Server) -> f64 {
        if at == 0 { |server| server.sockets()[0].get() as f64 } else { |server| server.sockets()[1].get() as f64 }
    };
    let family = |name, help, kind: Total, values: Vec<(Vec<(&'static str, String)>, f64)>| {
        let values: Vec<_> = values
            .iter()
            .map(|(labels, value)| (labels.iter().map(|(n, v)| (*n, v.as_str())).collect(), *value))
            .collect();
        match kind {
            Total::Counter => counters(name, help, values),
            Total::Gauge => gauges(name, help, values),
        }
    };
    [
        family(
            "coredns_proxy_conn_cache_hits_total",
            "Counter of connection cache hits per upstream and protocol.",
            Total::Counter,
            each(sockets(0), udp),
        ),
        family(
            "coredns_proxy_conn_cache_misses_total",
            "Counter of connection cache misses per upstream and protocol.",
            Total::Counter,
            each(sockets(1), udp),
        ),
        family(
            "coredns_proxy_healthcheck_failures_total",
            "Counter of the number of failed healthchecks.",
            Total::Counter,
            each(|server| server.failed_checks.get() as f64, proxy),
        ),
        family(
            "fairlead_dns_upstream_loop",
            "1 for an upstream server that leads back here and is not asked.",
            Total::Gauge,
            each(|server| f64::from(u8::from(server.is_loop())), &[]),
        ),
    ]
}

/// What a number does.
enum Total {
    Counter,
    Gauge,
}

/// The caches' metrics together, for the first address, since all have the same.
fn kept(caches: &[&Cache], readings: &[Reading]) -> Vec<MetricFamily> {
    let server = readings.first().map(server).unwrap_or_default();
    let labels = |more: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> {
        [("server", server.as_str()), ("zones", "."), ("view", "")].into_iter().chain(more.iter().copied()).collect()
    };
    let sizes = caches.iter().map(|cache| cache.size());
    let (with, without, bytes, evicted) =
        sizes.fold((0, 0, 0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1, sum.2 + size.2, sum.3 + size.3));
    let sum = |of: fn(&Counts) -> &Counter| caches.iter().map(|cache| of(&cache.counts).get()).sum::<u64>() as f64;
    let (hits, denials, misses) = (sum(|c| &c.hits), sum(|c| &c.denials), sum(|c| &c.misses));
    let types = |success: f64, denial: f64| {
        [(labels(&[("type", "success")]), success), (labels(&[("type", "denial")]), denial)]
    };
    let plain = |value: f64| [(labels(&[]), value)];
    let stale = sum(|c| &c.stale);
    let denied: u64 = caches.iter().map(|cache| cache.evicted_denials()).sum();
    vec![
        gauges("coredns_cache_entries", "The number of elements in the cache.", types(with as f64, without as f64)),
        counters("coredns_cache_hits_total", "The count of cache hits.", types(hits, denials)),
        counters("coredns_cache_misses_total", "The count of cache misses.", plain(misses)),
        counters(
            "coredns_cache_requests_total",
            "The count of cache requests.",
            plain(hits + denials + stale + misses),
        ),
        counters(
            "coredns_cache_prefetch_total",
            "The number of times the cache has prefetched a cached item.",
            plain(sum(|c| &c.prefetched)),
        ),
        counters(
            "coredns_cache_served_stale_total",
            "The number of requests served from stale cache entries.",
            plain(stale),
        ),
        counters(
            "coredns_cache_evictions_total",
            "The count of cache evictions.",
            types(evicted.saturating_sub(denied) as f64, denied as f64),
        ),
        gauge("fairlead_dns_cache_bytes", "Bytes of the cached answers.", bytes as f64),
    ]
}

fn queries(readings: &[Reading]) -> Vec<MetricFamily> {
    let (mut requests, mut dnssec, mut responses) = (Vec::new(), Vec::new(), Vec::new());
    let (mut sizes, mut response_sizes, mut durations) = (Vec::new(), Vec::new(), Vec::new());
    let servers: Vec<String> = readings.iter().map(server).collect();
    for (reading, server) in readings.iter().zip(&servers) {
        let proto = reading.transport.name();
        for (number, by_type) in FAMILIES.iter().zip(&reading.requests) {
            for (name, count) in TYPES.iter().zip(by_type).filter(|(_, count)| **count > 0) {
                let labels = dimensions(server, &[("proto", proto), ("family", number), ("type", name)]);
                requests.push((labels, *count as f64));
            }
        }
        sizes.extend(metric(&dimensions(server, &[("proto", proto)]), &reading.request_size, &SIZES, 1.0));
        response_sizes.extend(metric(&dimensions(server, &[("proto", proto)]), &reading.response_size, &SIZES, 1.0));
    }
    // These don't tell transports apart.
    let mut names = servers.clone();
    names.dedup();
    for server in &names {
        let own = || readings.iter().zip(&servers).filter(|(_, name)| *name == server).map(|(reading, _)| reading);
        let wanted: u64 = own().map(|reading| reading.dnssec_ok).sum();
        dnssec.extend((wanted > 0).then(|| (dimensions(server, &[]), wanted as f64)));
        let mut sums = Sums::default();
        own().for_each(|reading| sums.add(&reading.duration));
        durations.extend(metric(&dimensions(server, &[]), &sums, &TIMES, SECOND));
        for (maker, plugin) in MAKERS.iter().enumerate() {
            for (code, name) in CODES.iter().enumerate() {
                let count: u64 = own().map(|reading| reading.responses[maker][code]).sum();
                let labels = || dimensions(server, &[("rcode", name), ("plugin", plugin)]);
                responses.extend((count > 0).then(|| (labels(), count as f64)));
            }
        }
    }
    let histogram = |name, help, metrics| family(name, help, MetricType::HISTOGRAM, metrics);
    vec![
        counters("coredns_dns_requests_total", "Counter of DNS requests made per zone, protocol and family.", requests),
        counters("coredns_dns_do_requests_total", "Counter of DNS requests with DO bit set per zone.", dnssec),
        counters("coredns_dns_responses_total", "Counter of response status codes.", responses),
        histogram(
            "coredns_dns_request_size_bytes",
            "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol.",
            sizes,
        ),
        histogram("coredns_dns_response_size_bytes", "Size of the returned response in bytes.", response_sizes),
        histogram(
            "coredns_dns_request_duration_seconds",
            "Histogram of the time (in seconds) each request took per zone.",
            durations,
        ),
    ]
}

/// As CoreDNS writes the address of a server: without the address where it is every one.
fn server(reading: &Reading) -> String {
    let address = reading.server;
    let ip = if address.ip().is_unspecified() { String::new() } else { address.ip().to_string() };
    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
    format!("dns://{ip}:{}", address.port())
}

fn dimensions<'a>(server: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [("server", server), ("zone", "."), ("view", "")].into_iter().chain(more.iter().copied()).collect()
}

/// A histogram, if anything is in it. `unit` is how many of the bounds' and the sum's make one of the metric's.
fn metric(pairs: &[(&str, &str)], sums: &Sums, bounds: &[u64], unit: f64) -> Option<Metric> {
    let mut count = 0;
    let bucket = |(bound, within): (&u64, &u64)| {
        count += within;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / unit);
        bucket.set_cumulative_count(count);
        bucket
    };
    let buckets = bounds.iter().zip(&sums.counts).map(bucket).collect();
    count += sums.above;
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sums.sum as f64 / unit);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_histogram(histogram);
    (count > 0).then_some(metric)
}
