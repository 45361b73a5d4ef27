//! A server for names outside of the cluster, which answers at once, whatever is asked.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result};

/// Where it is.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// Length of a header.
const HEADER: usize = 12;

/// Answers on port 53 over UDP and TCP for as long as the process lives.
pub(super) fn start(address: Ipv4Addr) -> Result<()> {
    let address = SocketAddr::from((address, 53));
    let socket = UdpSocket::bind(address).with_context(|| format!("can't listen at {address}"))?;
    for _ in 0..2 {
        let socket = socket.try_clone()?;
        thread::spawn(move || datagrams(&socket));
    }
    let listener = TcpListener::bind(address)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || frames(stream));
        }
    });
    Ok(())
}

fn datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        if let Some(answer) = answer_of(&buffer[..length]) {
            // Who does not read it any more asks again.
            drop(socket.send_to(&answer, from));
        }
    }
}

fn frames(mut stream: TcpStream) {
    drop(stream.set_nodelay(true));
    let mut length = [0; 2];
    let mut buffer = vec![0; 65_535];
    while stream.read_exact(&mut length).is_ok() {
        let message = &mut buffer[..usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(message).is_err() {
            return;
        }
        let Some(answer) = answer_of(message) else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        if stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).is_err() {
            return;
        }
    }
}

/// An answer with one address that lives for an hour, or none for other types. `None`: it is no question.
pub(crate) fn answer_of(question: &[u8]) -> Option<Vec<u8>> {
    let mut end = HEADER;
    loop {
        let length = usize::from(*question.get(end)?);
        end += 1 + length;
        if length == 0 {
            break;
        }
    }
    let asked = question.get(HEADER..end + 4)?;
    let is_address = asked.get(asked.len() - 4..)? == [0, 1, 0, 1];
    let mut answer = question.get(..2)?.to_vec();
    // A response, with recursion.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(asked);
    if is_address {
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 198, 51, 100, 7]);
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    #[test]
    fn questions_for_addresses_get_one_and_what_is_none_gets_nothing() {
        let ask = |kind| {
            let mut message = Message::new(7, MessageType::Query, OpCode::Query);
            message.add_query(Query::query(Name::from_ascii("WWW.example.org.").unwrap(), kind));
            Message::from_vec(&answer_of(&message.to_vec().unwrap()).unwrap()).unwrap()
        };
        let answer = ask(RecordType::A);
        assert_eq!(answer.answers[0].to_string(), "WWW.example.org. 3600 IN A 198.51.100.7");
        assert!(ask(RecordType::AAAA).answers.is_empty());
        assert_eq!(answer_of(&[0; 11]), None);
        assert_eq!(answer_of(&[3; 20]), None);
    }
}
