//! The world outside, for both servers: names say what they have.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Serves in threads of this network namespace, for as long as the process lives.
pub(crate) fn serve() -> SocketAddr {
    let address: SocketAddr = "127.0.0.1:5300".parse().unwrap();
    let (udp, tcp) = (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            if let Ok(query) = Message::from_vec(&buffer[..length]) {
                let mut message = answer(&query);
                if message.answers.len() > 20 {
                    message.answers.truncate(5);
                    message.metadata.truncation = true;
                }
                drop(udp.send_to(&message.to_vec().unwrap(), client));
            }
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut length = [0; 2];
                while stream.read_exact(&mut length).is_ok() {
                    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut query).unwrap();
                    let message = answer(&Message::from_vec(&query).unwrap()).to_vec().unwrap();
                    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
                    stream.write_all(&[&length[..], &message].concat()).unwrap();
                }
            });
        }
    });
    address
}

fn answer(query: &Message) -> Message {
    let mut message = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.queries.clone_from(&query.queries);
    message.edns = query.edns.as_ref().map(|_| hickory_proto::op::Edns::new());
    let Some(question) = query.queries.first() else { return message };
    let (name, kind) = (question.name().clone(), question.query_type());
    let label = name.iter().next().map(|label| String::from_utf8_lossy(label).to_lowercase()).unwrap_or_default();
    let zone = Name::from_ascii("test.").unwrap();
    let mut add = |name: &Name, data| message.answers.push(Record::from_rdata(name.clone(), 300, data));
    let v4 = |last: u8| RData::A(A::new(192, 0, 2, last));
    match (label.as_str(), kind) {
        ("v4" | "both" | "alias-target" | "lb", RecordType::A) => add(&name, v4(33)),
        ("v6" | "both", RecordType::AAAA) => add(&name, RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
        ("mapped", RecordType::A) => add(&name, v4(34)),
        ("mapped", RecordType::AAAA) => add(&name, RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0xffff, 0xc000, 0x222))),
        ("many", RecordType::A) => (1..=100).for_each(|last| add(&name, v4(last))),
        ("text", RecordType::TXT) => add(&name, RData::TXT(TXT::new(vec!["one".to_owned(), "two".to_owned()]))),
        ("mail", RecordType::MX) => add(&name, RData::MX(MX::new(10, Name::from_ascii("v4.test.").unwrap()))),
        ("alias", RecordType::A | RecordType::AAAA | RecordType::CNAME) => {
            let target = Name::from_ascii("alias-target.test.").unwrap();
            add(&name, RData::CNAME(CNAME(target.clone())));
            if kind == RecordType::A {
                add(&target, v4(33));
            }
        }
        ("gone", _) => message.metadata.response_code = ResponseCode::NXDomain,
        ("refused", _) => message.metadata.response_code = ResponseCode::Refused,
        ("failed", _) => message.metadata.response_code = ResponseCode::ServFail,
        _ => {}
    }
    let code = message.metadata.response_code;
    if message.answers.iter().all(|record| record.record_type() != kind)
        && matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
    {
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 60, 60, 60, 20);
        message.authorities.push(Record::from_rdata(zone, 20, RData::SOA(soa)));
    }
    message
}
