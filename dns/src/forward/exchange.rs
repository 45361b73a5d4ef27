//! One question to one server: over UDP, and over TCP when the answer doesn't fit.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::{Message, MessageType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::{ForwardError, Request, UDP_SIZE};

/// Asks one server. The caller limits how long it takes.
pub(super) async fn exchange(upstream: SocketAddr, request: &Request) -> Result<Message, ForwardError> {
    let message = over_udp(upstream, request).await?;
    if message.metadata.truncation { over_tcp(upstream, request).await } else { Ok(message) }
}

async fn over_udp(upstream: SocketAddr, request: &Request) -> Result<Message, ForwardError> {
    let any = if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A socket for each question: who wants to forge an answer has to guess its port besides the id. Connected, it
    // takes datagrams from that server only, and learns when nobody listens there.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(upstream).await?;
    let question = request.message(random_id());
    socket.send(&question.to_vec()?).await?;
    let mut buffer = [0; UDP_SIZE as usize];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(message) = buffer.get(..length).and_then(|bytes| matching(&question, bytes)) {
            return Ok(message);
        }
    }
}

async fn over_tcp(upstream: SocketAddr, request: &Request) -> Result<Message, ForwardError> {
    let mut stream = TcpStream::connect(upstream).await?;
    let question = request.message(random_id());
    let bytes = question.to_vec()?;
    let length = u16::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    stream.write_all(&[&length.to_be_bytes(), &bytes[..]].concat()).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    matching(&question, &buffer).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{upstream} answered something else over TCP")).into()
    })
}

/// The message, if it answers the question: the same id, name, type and class.
fn matching(question: &Message, bytes: &[u8]) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let answers = message.metadata.message_type == MessageType::Response
        && message.metadata.id == question.metadata.id
        && message.queries == question.queries;
    answers.then_some(message)
}

/// An id that can't be guessed: a keyed hash whose key comes from the kernel.
fn random_id() -> u16 {
    let [a, b, ..] = RandomState::new().build_hasher().finish().to_be_bytes();
    u16::from_be_bytes([a, b])
}
