use std::net::Ipv4Addr;

use super::*;

const QUERY: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03web\0\0\x1c\0\x01";

fn server() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 53).into()
}

#[test]
fn shards_of_one_address_are_added() {
    let meters = Meters::default();
    let shards = [meters.alone(server(), Transport::Udp), meters.shared(server(), Transport::Udp)];
    let other = meters.shared(server(), Transport::Tcp);
    let answered = Answered { code: 3, dnssec_ok: true, size: 512, maker: Maker::Kubernetes };
    for shard in shards {
        shard.report(Asked::new(QUERY, true), answered);
        shard.took(Duration::from_micros(300), 2);
    }
    other.report(Asked::new(b"", false), Answered { code: BADVERS, maker: Maker::Nobody, ..answered });
    let readings = meters.read();
    assert_eq!(readings.len(), 2);
    let [udp, tcp] = &readings[..] else { panic!() };
    assert_eq!(udp.requests[1][TYPES.iter().position(|name| *name == "AAAA").unwrap()], 2);
    assert_eq!(udp.responses[0][CODES.iter().position(|name| *name == "NXDOMAIN").unwrap()], 2);
    assert_eq!((udp.dnssec_ok, udp.request_size.counts[1], udp.response_size.counts[6]), (2, 2, 2));
    assert_eq!((udp.duration.counts[1], udp.duration.sum), (4, 1_200_000));
    assert_eq!(tcp.requests[0][TYPES.len() - 1], 1);
    assert_eq!(tcp.responses[2][CODES.len() - 2], 1);
}

#[test]
fn types_have_their_names() {
    for (number, name) in [(1, "A"), (33, "SRV"), (65, "HTTPS"), (50, "NSEC3"), (255, "ANY"), (99, "other")] {
        assert_eq!(TYPES[type_index(Some(RecordType(number)))], name);
    }
    assert_eq!(TYPES[type_index(None)], "other");
}

#[test]
fn plain_responses_say_code_and_signatures() {
    let plain = b"\0\x01\x84\x03\0\x01\0\0\0\0\0\0\x03web\0\0\x1c\0\x01";
    let expected = Answered { code: 3, dnssec_ok: false, size: plain.len(), maker: Maker::Kubernetes };
    assert_eq!(Answered::plainly(plain, Maker::Kubernetes), expected);
    let mut edns = plain.to_vec();
    edns[11] = 1;
    edns.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    assert!(Answered::plainly(&edns, Maker::Kubernetes).dnssec_ok);
    assert_eq!(Answered::plainly(b"", Maker::Kubernetes).code, 0);
}

#[test]
fn a_histogram_has_what_is_within_and_what_is_above() {
    let histogram = Histogram::new(&SIZES);
    for value in [0, 100, 101, 64_001] {
        histogram.observe(value);
    }
    let mut sums = Sums::default();
    histogram.add_to(&mut sums);
    assert_eq!((&sums.counts[..3], sums.above, sums.sum), (&[1, 1, 1][..], 1, 64_202));
}
