//! Which records a name has.

use crate::client::{Tiers, ask, check, query, run};
use crate::fixture;
use fairlead_dns::Zone;
use fairlead_objects::{Event, Object};
use hickory_proto::op::{Message, ResponseCode};

#[test]
fn d1_schema_version() {
    check(&[
        ask("dns-version.cluster.local TXT").gives(&["dns-version.cluster.local. 28800 IN TXT 1.1.0"]),
        ask("dns-version.cluster.local A").no_data().everywhere(),
    ]);
}

#[test]
fn d2_cluster_ip_addresses() {
    check(&[
        ask("web.shop.svc.cluster.local A").gives(&["web.shop.svc.cluster.local. 5 IN A 10.96.0.1"]).everywhere(),
        ask("web.shop.svc.cluster.local AAAA")
            .gives(&["web.shop.svc.cluster.local. 5 IN AAAA fd00:10:96::1"])
            .everywhere(),
    ]);
}

#[test]
fn d2_other_family_is_nodata() {
    check(&[
        ask("web4.shop.svc.cluster.local AAAA").no_data().everywhere(),
        ask("web6.shop.svc.cluster.local A").no_data().everywhere(),
    ]);
}

#[test]
fn d2_d3_a_name_may_begin_with_a_digit() {
    check(&[
        ask("2nd.shop.svc.cluster.local A").gives(&["2nd.shop.svc.cluster.local. 5 IN A 10.96.0.2"]).everywhere(),
        ask("2nd.shop.svc.cluster.local AAAA").no_data().everywhere(),
        ask("24x7.shop.svc.cluster.local A").gives(&["24x7.shop.svc.cluster.local. 5 IN A 10.244.1.80"]).everywhere(),
        ask("24x7-0.24x7.shop.svc.cluster.local A")
            .gives(&["24x7-0.24x7.shop.svc.cluster.local. 5 IN A 10.244.1.80"])
            .everywhere(),
        ask("_web._tcp.24x7.shop.svc.cluster.local SRV")
            .gives(&["_web._tcp.24x7.shop.svc.cluster.local. 5 IN SRV 0 100 80 24x7-0.24x7.shop.svc.cluster.local."])
            .with(&["24x7-0.24x7.shop.svc.cluster.local. 5 IN A 10.244.1.80"]),
        ask("2.0.96.10.in-addr.arpa PTR").gives(&["2.0.96.10.in-addr.arpa. 5 IN PTR 2nd.shop.svc.cluster.local."]),
    ]);
}

#[test]
fn d3_headless_addresses() {
    check(&[
        ask("pets.shop.svc.cluster.local A")
            .gives(&[
                "pets.shop.svc.cluster.local. 5 IN A 10.244.1.10",
                "pets.shop.svc.cluster.local. 5 IN A 10.244.1.11",
            ])
            .everywhere(),
        ask("pets.shop.svc.cluster.local AAAA")
            .gives(&["pets.shop.svc.cluster.local. 5 IN AAAA fd00:10:244:1::10"])
            .everywhere(),
    ]);
}

#[test]
fn d3_headless_in_the_other_family_is_nodata() {
    check(&[ask("four.shop.svc.cluster.local AAAA").no_data().everywhere()]);
}

#[test]
fn d3_headless_without_ready_endpoints_is_no_name() {
    check(&[
        ask("idle.shop.svc.cluster.local A").no_name().everywhere(),
        ask("idle.shop.svc.cluster.local SRV").no_name().everywhere(),
        ask("_db._tcp.idle.shop.svc.cluster.local SRV").no_name().everywhere(),
        ask("idle-0.idle.shop.svc.cluster.local A").no_name().everywhere(),
        ask("lonely.shop.svc.cluster.local A").no_name().everywhere(),
    ]);
}

#[test]
fn d4_cluster_ip_without_endpoints_keeps_its_address() {
    check(&[ask("web4.shop.svc.cluster.local A")
        .gives(&["web4.shop.svc.cluster.local. 5 IN A 10.96.0.4"])
        .everywhere()]);
}

#[test]
fn d5_d6_endpoint_names() {
    check(&[
        ask("pets-0.pets.shop.svc.cluster.local A")
            .gives(&["pets-0.pets.shop.svc.cluster.local. 5 IN A 10.244.1.10"])
            .everywhere(),
        ask("pets-0.pets.shop.svc.cluster.local AAAA")
            .gives(&["pets-0.pets.shop.svc.cluster.local. 5 IN AAAA fd00:10:244:1::10"])
            .everywhere(),
        ask("pets-1.pets.shop.svc.cluster.local AAAA").no_data().everywhere(),
        ask("pets-2.pets.shop.svc.cluster.local A").no_name().everywhere(),
        ask("pets-9.pets.shop.svc.cluster.local A").no_name().everywhere(),
        ask("10-244-1-30.four.shop.svc.cluster.local A")
            .gives(&["10-244-1-30.four.shop.svc.cluster.local. 5 IN A 10.244.1.30"])
            .everywhere(),
        // An endpoint with a hostname has no other name.
        ask("10-244-1-10.pets.shop.svc.cluster.local A").no_name().everywhere(),
    ]);
}

#[test]
fn d5_several_addresses_share_an_endpoint_name() {
    check(&[ask("twin.twin.shop.svc.cluster.local A")
        .gives(&[
            "twin.twin.shop.svc.cluster.local. 5 IN A 10.244.1.60",
            "twin.twin.shop.svc.cluster.local. 5 IN A 10.244.1.61",
        ])
        .everywhere()]);
}

#[test]
fn d5_cluster_ip_services_have_endpoint_names_too() {
    check(&[ask("backend.web.shop.svc.cluster.local A")
        .gives(&["backend.web.shop.svc.cluster.local. 5 IN A 10.244.1.70"])
        .everywhere()]);
}

#[test]
fn d7_named_ports_of_cluster_ip_services() {
    check(&[
        ask("_http._tcp.web.shop.svc.cluster.local SRV")
            .gives(&["_http._tcp.web.shop.svc.cluster.local. 5 IN SRV 0 50 80 web.shop.svc.cluster.local."])
            .with(&[
                "web.shop.svc.cluster.local. 5 IN A 10.96.0.1",
                "web.shop.svc.cluster.local. 5 IN AAAA fd00:10:96::1",
            ]),
        ask("_http._tcp.web6.shop.svc.cluster.local SRV")
            .gives(&["_http._tcp.web6.shop.svc.cluster.local. 5 IN SRV 0 100 80 web6.shop.svc.cluster.local."])
            .with(&["web6.shop.svc.cluster.local. 5 IN AAAA fd00:10:96::6"]),
        ask("_http._udp.web.shop.svc.cluster.local SRV").no_name().everywhere(),
        ask("_https._tcp.web.shop.svc.cluster.local SRV").no_name().everywhere(),
        // A port without a name has no SRV record of its own.
        ask("_._tcp.web4.shop.svc.cluster.local SRV").no_name().everywhere(),
        ask("_80._tcp.web4.shop.svc.cluster.local SRV").no_name().everywhere(),
    ]);
}

#[test]
fn d8_an_endpoint_has_its_ports() {
    check(&[
        ask("pets-0.pets.shop.svc.cluster.local SRV")
            .gives(&[
                "pets-0.pets.shop.svc.cluster.local. 5 IN SRV 0 25 5432 pets-0.pets.shop.svc.cluster.local.",
                "pets-0.pets.shop.svc.cluster.local. 5 IN SRV 0 25 9100 pets-0.pets.shop.svc.cluster.local.",
            ])
            .with(&[
                "pets-0.pets.shop.svc.cluster.local. 5 IN A 10.244.1.10",
                "pets-0.pets.shop.svc.cluster.local. 5 IN AAAA fd00:10:244:1::10",
            ]),
        ask("backend.web.shop.svc.cluster.local SRV")
            .gives(&["backend.web.shop.svc.cluster.local. 5 IN SRV 0 100 8080 backend.web.shop.svc.cluster.local."])
            .with(&["backend.web.shop.svc.cluster.local. 5 IN A 10.244.1.70"]),
        // Without ports, and with the name of one in front: as CoreDNS.
        ask("10-244-1-40.bare.shop.svc.cluster.local SRV").no_data(),
        ask("_db._tcp.pets-0.pets.shop.svc.cluster.local SRV").no_name(),
    ]);
}

#[test]
fn d8_named_ports_of_headless_services() {
    check(&[
        ask("_db._tcp.pets.shop.svc.cluster.local SRV")
            .gives(&[
                "_db._tcp.pets.shop.svc.cluster.local. 5 IN SRV 0 33 5432 pets-0.pets.shop.svc.cluster.local.",
                "_db._tcp.pets.shop.svc.cluster.local. 5 IN SRV 0 33 5432 pets-1.pets.shop.svc.cluster.local.",
            ])
            .with(&[
                "pets-0.pets.shop.svc.cluster.local. 5 IN A 10.244.1.10",
                "pets-0.pets.shop.svc.cluster.local. 5 IN AAAA fd00:10:244:1::10",
                "pets-1.pets.shop.svc.cluster.local. 5 IN A 10.244.1.11",
            ]),
        // One target with two addresses is one record.
        ask("_web._tcp.twin.shop.svc.cluster.local SRV")
            .gives(&["_web._tcp.twin.shop.svc.cluster.local. 5 IN SRV 0 50 80 twin.twin.shop.svc.cluster.local."])
            .with(&[
                "twin.twin.shop.svc.cluster.local. 5 IN A 10.244.1.60",
                "twin.twin.shop.svc.cluster.local. 5 IN A 10.244.1.61",
            ]),
    ]);
}

#[test]
fn d8_six_endpoints_share_the_weight() {
    run(async {
        let tiers = Tiers::start(fixture::responder(fixture::zone(), None)).await;
        let bytes = tiers.tcp(&query("_c-port._udp.six.shop.svc.cluster.local SRV")).await;
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.answers.len(), 6);
        for record in &message.answers {
            assert!(record.data.to_string().starts_with("0 16 1234 10-244-2-"), "{record}");
        }
    });
}

#[test]
fn d9_srv_of_the_service_itself_has_every_port() {
    check(&[
        ask("web4.shop.svc.cluster.local SRV")
            .gives(&["web4.shop.svc.cluster.local. 5 IN SRV 0 100 80 web4.shop.svc.cluster.local."])
            .with(&["web4.shop.svc.cluster.local. 5 IN A 10.96.0.4"]),
        ask("four.shop.svc.cluster.local SRV")
            .gives(&["four.shop.svc.cluster.local. 5 IN SRV 0 100 80 10-244-1-30.four.shop.svc.cluster.local."])
            .with(&["10-244-1-30.four.shop.svc.cluster.local. 5 IN A 10.244.1.30"]),
        ask("bare.shop.svc.cluster.local SRV").no_data().everywhere(),
    ]);
}

#[test]
fn d10_addresses_of_a_port() {
    check(&[
        ask("_http._tcp.web.shop.svc.cluster.local A")
            .gives(&["_http._tcp.web.shop.svc.cluster.local. 5 IN A 10.96.0.1"])
            .everywhere(),
        ask("_db._tcp.pets.shop.svc.cluster.local AAAA")
            .gives(&["_db._tcp.pets.shop.svc.cluster.local. 5 IN AAAA fd00:10:244:1::10"])
            .everywhere(),
        ask("_nope._tcp.web.shop.svc.cluster.local A").no_name().everywhere(),
    ]);
}

#[test]
fn d11_external_names_within_the_zone() {
    check(&[
        ask("inside.shop.svc.cluster.local A").gives(&[
            "inside.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local.",
            "web.shop.svc.cluster.local. 5 IN A 10.96.0.1",
        ]),
        ask("twice.shop.svc.cluster.local AAAA").gives(&[
            "twice.shop.svc.cluster.local. 5 IN CNAME inside.shop.svc.cluster.local.",
            "inside.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local.",
            "web.shop.svc.cluster.local. 5 IN AAAA fd00:10:96::1",
        ]),
        ask("inside.shop.svc.cluster.local CNAME")
            .gives(&["inside.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local."]),
        ask("outside.shop.svc.cluster.local A").gives(&["outside.shop.svc.cluster.local. 5 IN CNAME www.example.org."]),
    ]);
}

#[test]
fn d11_external_names_that_lead_nowhere() {
    check(&[
        ask("inside.shop.svc.cluster.local SRV").no_data().everywhere(),
        ask("address.shop.svc.cluster.local A").no_data().everywhere(),
        ask("loop-a.shop.svc.cluster.local A").no_data(),
        ask("dangling.shop.svc.cluster.local A").no_data(),
        ask("x.inside.shop.svc.cluster.local A").no_name().everywhere(),
        ask("_http._tcp.inside.shop.svc.cluster.local SRV").no_name().everywhere(),
    ]);
}

#[test]
fn d12_pod_names_say_their_address() {
    check(&[
        ask("10-244-1-10.shop.pod.cluster.local A")
            .gives(&["10-244-1-10.shop.pod.cluster.local. 5 IN A 10.244.1.10"])
            .everywhere(),
        ask("fd00-10-244--1.shop.pod.cluster.local AAAA")
            .gives(&["fd00-10-244--1.shop.pod.cluster.local. 5 IN AAAA fd00:10:244::1"])
            .everywhere(),
        ask("10-244-1-10.shop.pod.cluster.local AAAA").no_data().everywhere(),
        ask("10-244-1-10.nowhere.pod.cluster.local A").no_name().everywhere(),
        ask("words.shop.pod.cluster.local A").no_name().everywhere(),
        ask("x.10-244-1-10.shop.pod.cluster.local A").no_name().everywhere(),
        ask("shop.pod.cluster.local A").no_data().everywhere(),
    ]);
}

#[test]
fn d13_addresses_lead_back() {
    check(&[
        ask("1.0.96.10.in-addr.arpa PTR").gives(&["1.0.96.10.in-addr.arpa. 5 IN PTR web.shop.svc.cluster.local."]),
        ask("10.1.244.10.in-addr.arpa PTR").gives(&[
            "10.1.244.10.in-addr.arpa. 5 IN PTR pets-0.pets.shop.svc.cluster.local.",
            "10.1.244.10.in-addr.arpa. 5 IN PTR pets-0.pets-again.shop.svc.cluster.local.",
        ]),
        ask("a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa PTR").gives(&[
            "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa. 5 IN PTR kube-dns.kube-system.svc.cluster.local.",
        ]),
        // Somebody else's address is somebody else's to name.
        ask("1.2.0.192.in-addr.arpa PTR").fails(ResponseCode::Refused),
        ask("12.1.244.10.in-addr.arpa PTR").fails(ResponseCode::Refused),
    ]);
}

#[test]
fn d14_the_zone_has_an_soa() {
    run(async {
        let zone = fixture::zone();
        let serial = zone.serial();
        let tiers = Tiers::start(fixture::responder(zone, None)).await;
        let message = Message::from_vec(&tiers.ask(&query("cluster.local SOA"), false).await).unwrap();
        let lines: Vec<_> = message.answers.iter().map(ToString::to_string).collect();
        let data = format!("ns.dns.cluster.local. hostmaster.cluster.local. {serial} 7200 1800 86400 5");
        assert_eq!(lines, [format!("cluster.local. 5 IN SOA {data}")]);
        assert!(message.metadata.authoritative);
    });
}

#[test]
fn d14_the_serial_is_the_time_of_the_last_change() {
    let seconds = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u32::try_from(since.as_secs()).unwrap()
    };
    let before = seconds();
    let mut builder = fixture::builder();
    let mut zone = fixture::zone_of(None);
    let mut change = |zone: &mut Zone, event: Event| {
        builder.apply(event);
        let deltas = builder.settle();
        let changes = !deltas.is_empty();
        deltas.into_iter().for_each(|delta| zone.update(delta));
        changes
    };
    for object in fixture::cluster() {
        change(&mut zone, Event::Applied(object));
    }
    assert_eq!(zone.serial(), 0, "nobody is told of a zone that is not complete");
    zone.set_synced();
    let loaded = zone.serial();
    assert!((before..=seconds()).contains(&loaded), "{loaded}");
    let unready = vec![fixture::endpoint("10.244.7.7", "", false)];
    let invisible = Object::EndpointSlice(fixture::slice("shop", "unready", "four", &[], unready));
    assert!(!change(&mut zone, Event::Applied(invisible)), "what nobody sees changes nothing");
    // However many come in a second, the next second has a serial that none of what was before has.
    let mut serials = vec![loaded];
    for number in 1..=20 {
        let new = fixture::service("shop", "new", &[&format!("10.96.9.{number}")], &[]);
        assert!(change(&mut zone, Event::Applied(Object::Service(new))));
        serials.push(zone.serial());
    }
    let last = *serials.last().unwrap();
    while seconds() == last {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    serials.push(zone.serial());
    assert!(serials.is_sorted() && serials.last() > serials.first(), "{serials:?}");
    assert!(*serials.last().unwrap() <= seconds(), "not ahead of the clock: {serials:?}");
    assert_eq!(zone.serial(), *serials.last().unwrap(), "and it stays");
}

#[test]
fn d15_the_zone_has_a_name_server() {
    check(&[
        ask("cluster.local NS").gives(&["cluster.local. 5 IN NS kube-dns.kube-system.svc.cluster.local."]).with(&[
            "kube-dns.kube-system.svc.cluster.local. 5 IN A 10.96.0.10",
            "kube-dns.kube-system.svc.cluster.local. 5 IN AAAA fd00:10:96::a",
        ]),
        ask("ns.dns.cluster.local A").gives(&["ns.dns.cluster.local. 5 IN A 10.96.0.10"]).everywhere(),
        ask("shop.svc.cluster.local NS").no_data().everywhere(),
        ask("nowhere.svc.cluster.local NS").no_name().everywhere(),
    ]);
}

#[test]
fn d16_names_above_services_have_no_data() {
    check(&[
        ask("cluster.local A").no_data().everywhere(),
        ask("svc.cluster.local A").no_data().everywhere(),
        ask("pod.cluster.local AAAA").no_data().everywhere(),
        ask("shop.svc.cluster.local A").no_data().everywhere(),
        ask("empty.svc.cluster.local SRV").no_data().everywhere(),
        // A name without records of its own above one that has some (RFC 8020).
        ask("_tcp.web.shop.svc.cluster.local A").no_data().everywhere(),
    ]);
}

#[test]
fn d16_unknown_names_do_not_exist() {
    check(&[
        ask("nowhere.svc.cluster.local A").no_name().everywhere(),
        ask("web.nowhere.svc.cluster.local A").no_name().everywhere(),
        ask("nothing.shop.svc.cluster.local A").no_name().everywhere(),
        ask("foo.cluster.local A").no_name().everywhere(),
        ask("a.b.c.web.shop.svc.cluster.local A").no_name().everywhere(),
        ask("www.example.org.shop.svc.cluster.local A").no_name().everywhere(),
        ask("cluster.local.cluster.local A").no_name().everywhere(),
    ]);
}

#[test]
fn d17_other_types_follow_the_name() {
    check(&[
        ask("web.shop.svc.cluster.local HTTPS").no_data().everywhere(),
        ask("web.shop.svc.cluster.local MX").no_data().everywhere(),
        ask("web.shop.svc.cluster.local HINFO").no_data().everywhere(),
        ask("web.shop.svc.cluster.local ANY").no_data().everywhere(),
        ask("web.shop.svc.cluster.local TXT").no_data().everywhere(),
        ask("nothing.shop.svc.cluster.local HTTPS").no_name().everywhere(),
    ]);
}

#[test]
fn d18_transfers_are_refused() {
    check(&[
        ask("cluster.local AXFR").fails(ResponseCode::Refused),
        ask("web.shop.svc.cluster.local AXFR").fails(ResponseCode::Refused),
        ask("cluster.local TYPE251").fails(ResponseCode::Refused),
    ]);
}

#[test]
fn d27_unready_endpoints_that_are_published_come_as_ready() {
    // publishNotReadyAddresses reaches DNS as ready endpoints; nothing else about the pod counts.
    let mut endpoint = fixture::endpoint("10.244.1.99", "p-0", true);
    (endpoint.serving, endpoint.terminating) = (false, true);
    let objects = [
        Object::Service(fixture::service("shop", "p", &[], &[])),
        Object::EndpointSlice(fixture::slice("shop", "p-1", "p", &[], vec![endpoint])),
    ];
    let zone = fixture::zone_of(objects.map(Event::Applied));
    assert!(zone.facts(fixture::origin().below(&["p-0", "p", "shop", "svc"]).unwrap().as_wire()).is_some());
}

#[test]
fn d28_terminating_endpoints_leave_at_once() {
    check(&[ask("pets-3.pets.shop.svc.cluster.local A").no_name().everywhere()]);
}

#[test]
fn d29_slices_join_by_label_and_duplicates_count_once() {
    check(&[
        ask("split.shop.svc.cluster.local A").gives(&["split.shop.svc.cluster.local. 5 IN A 10.244.1.50"]).everywhere(),
        ask("_web._tcp.split.shop.svc.cluster.local SRV")
            .gives(&["_web._tcp.split.shop.svc.cluster.local. 5 IN SRV 0 100 80 x.split.shop.svc.cluster.local."])
            .with(&["x.split.shop.svc.cluster.local. 5 IN A 10.244.1.50"]),
        ask("names.pets.shop.svc.cluster.local A").no_name().everywhere(),
        ask("orphan.pets.shop.svc.cluster.local A").no_name().everywhere(),
    ]);
}

#[test]
fn d29_slices_without_ports_have_addresses() {
    check(&[ask("bare.shop.svc.cluster.local A")
        .gives(&["bare.shop.svc.cluster.local. 5 IN A 10.244.1.40", "bare.shop.svc.cluster.local. 5 IN A 10.244.1.41"])
        .everywhere()]);
}

#[test]
fn d30_dual_stack() {
    check(&[
        ask("kube-dns.kube-system.svc.cluster.local A")
            .gives(&["kube-dns.kube-system.svc.cluster.local. 5 IN A 10.96.0.10"])
            .everywhere(),
        ask("kube-dns.kube-system.svc.cluster.local AAAA")
            .gives(&["kube-dns.kube-system.svc.cluster.local. 5 IN AAAA fd00:10:96::a"])
            .everywhere(),
    ]);
}
