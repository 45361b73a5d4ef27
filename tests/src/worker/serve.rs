//! The small server that every pod runs: one thread of the worker for all ports of a pod.

use std::collections::HashMap;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::line;
use crate::proto::Serve;

/// The event that ends the loop.
const STOP: u64 = u64::MAX;

/// A server that runs. Dropping it closes its sockets, which would keep their namespace.
pub(super) struct Server {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens in this thread's namespace, then answers in a thread of its own.
    pub(super) fn start(wanted: Serve) -> Result<Self> {
        let stop = Arc::new(EventFd::new()?);
        let mut server = Loop::new(wanted, stop.clone())?;
        let thread = thread::Builder::new().stack_size(256 << 10).spawn(move || server.run())?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

enum Source {
    Listener(TcpListener),
    Stream(Stream),
    Datagrams(UdpSocket),
}

/// A connection with what has come and what has still to go.
struct Stream {
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    input: Vec<u8>,
    output: Vec<u8>,
    /// When to answer and close, and what.
    last: Option<(Instant, Vec<u8>)>,
}

struct Loop {
    wanted: Serve,
    epoll: Epoll,
    sources: HashMap<u64, Source>,
    next: u64,
    stop: Arc<EventFd>,
}

impl Loop {
    fn new(wanted: Serve, stop: Arc<EventFd>) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let mut new = Self { epoll, sources: HashMap::new(), next: 0, stop, wanted };
        let everywhere = [IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses: Vec<IpAddr> =
            if new.wanted.addresses.is_empty() { everywhere.to_vec() } else { new.wanted.addresses.clone() };
        for ip in addresses {
            for port in new.wanted.tcp.clone() {
                let listener = listen(SocketAddr::new(ip, port), Type::STREAM, None)?;
                new.add(Source::Listener(listener.into()))?;
            }
            for port in new.wanted.sctp.clone() {
                // A socket of one association is read and written as a stream is.
                let listener = listen(SocketAddr::new(ip, port), Type::STREAM, Some(Protocol::SCTP))?;
                new.add(Source::Listener(listener.into()))?;
            }
            for port in new.wanted.udp.clone() {
                let socket = listen(SocketAddr::new(ip, port), Type::DGRAM, None)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
                new.add(Source::Datagrams(socket.into()))?;
            }
        }
        Ok(new)
    }

    fn add(&mut self, source: Source) -> Result<()> {
        let token = self.next;
        self.next += 1;
        self.epoll.add(source.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        self.sources.insert(token, source);
        Ok(())
    }

    fn run(&mut self) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let timeout = self.end_silences();
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
            };
            for event in &events[..count] {
                if event.data() == STOP {
                    let _ = self.stop.read();
                    return;
                }
                self.handle(event.data());
            }
        }
    }

    /// Answers who has waited long enough. Gives how long the next one waits.
    fn end_silences(&mut self) -> EpollTimeout {
        let now = Instant::now();
        let mut next: Option<Duration> = None;
        self.sources.retain(|_, source| {
            let Source::Stream(stream) = source else { return true };
            let Some((due, _)) = &stream.last else { return true };
            let left = due.saturating_duration_since(now);
            if !left.is_zero() {
                next = Some(next.map_or(left, |next| next.min(left)));
                return true;
            }
            let (_, answer) = stream.last.take().expect("it has one");
            stream.output.extend(answer);
            // What does not fit is lost, which its client sees.
            let _ = stream.write();
            false
        });
        // Rounded up, so that it is due then.
        next.map_or(EpollTimeout::NONE, |next| {
            EpollTimeout::try_from(next + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
        })
    }

    fn handle(&mut self, token: u64) {
        match self.sources.get_mut(&token) {
            Some(Source::Listener(listener)) => {
                if let Ok((stream, _)) = listener.accept()
                    && let Some(stream) = Stream::greet(stream, &self.wanted)
                {
                    // A connection that can't be watched is closed, which is what its client then sees.
                    let _ = self.add(Source::Stream(stream));
                }
            }
            Some(Source::Datagrams(socket)) => answer_datagram(socket, &self.wanted),
            Some(Source::Stream(stream)) => match stream.go_on(&self.wanted) {
                Some(flags) => {
                    let _ = self.epoll.modify(&stream.stream, &mut EpollEvent::new(flags, token));
                }
                None => {
                    self.sources.remove(&token);
                }
            },
            None => {}
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Listener(listener) => listener.as_fd(),
            Self::Stream(stream) => stream.stream.as_fd(),
            Self::Datagrams(socket) => socket.as_fd(),
        }
    }
}

impl Stream {
    /// Says who we are at once, so that a client needs to send nothing.
    fn greet(stream: TcpStream, wanted: &Serve) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        // SCTP knows no such option of TCP, and waits for nothing here.
        let _ = stream.set_nodelay(true);
        let (peer, local) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
        let output = line::answer(&wanted.pod, &wanted.node, peer, local, b"");
        let mut new = Self { stream, peer, local, input: Vec::new(), output, last: None };
        new.write()?;
        Some(new)
    }

    /// Reads and answers what is there. Gives what to wait for next, or nothing when the connection is over.
    fn go_on(&mut self, wanted: &Serve) -> Option<EpollFlags> {
        let mut buffer = [0; 16384];
        match self.stream.read(&mut buffer) {
            // Nothing more comes from a client that waits: to listen on would be told of the end for ever.
            Ok(0) => return self.last.is_some().then(EpollFlags::empty),
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        while let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
            let request: Vec<u8> = self.input.drain(..=end).collect();
            let answer = line::answer(&wanted.pod, &wanted.node, self.peer, self.local, &request);
            match line::silence(&request) {
                Some(silence) => self.last = Some((Instant::now() + silence, answer)),
                None => self.output.extend(answer),
            }
        }
        self.write()?;
        let more = if self.output.is_empty() { EpollFlags::empty() } else { EpollFlags::EPOLLOUT };
        Some(EpollFlags::EPOLLIN | more)
    }

    fn write(&mut self) -> Option<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return None,
            }
        }
        Some(())
    }
}

/// Answers one datagram from the address that it was sent to.
fn answer_datagram(socket: &UdpSocket, wanted: &Serve) {
    let mut buffer = vec![0; 65536];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut iov = [IoSliceMut::new(&mut buffer)];
    let received = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_DONTWAIT);
    let Ok(message) = received else { return };
    let (count, Some(peer)) = (message.bytes, message.address) else { return };
    let info = message.cmsgs().ok().and_then(|mut all| {
        all.find_map(|one| match one {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
            _ => None,
        })
    });
    let Some(mut info) = info else { return };
    let port = socket.local_addr().map_or(0, |local| local.port());
    let local = SocketAddr::new(Ipv6Addr::from(info.ipi6_addr.s6_addr).into(), port);
    let peer_address = SocketAddr::V6(SocketAddrV6::from(peer));
    let answer = line::answer(&wanted.pod, &wanted.node, peer_address, local, &buffer[..count]);
    if !matches!(local.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()) {
        // The route decides, as it would for any server.
        info.ipi6_ifindex = 0;
    }
    let control = [ControlMessage::Ipv6PacketInfo(&info)];
    // An answer that can't be sent is a lost datagram: the client sees it.
    let _ = sendmsg(socket.as_raw_fd(), &[IoSlice::new(&answer)], &control, MsgFlags::MSG_DONTWAIT, Some(&peer));
}

/// A listening socket. All are IPv6 sockets, those for IPv4 addresses with the address mapped.
fn listen(address: SocketAddr, kind: Type, protocol: Option<Protocol>) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, protocol)?;
    let mapped = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket
        .bind(&SocketAddr::new(mapped.into(), address.port()).into())
        .with_context(|| format!("a server can't listen on {address}"))?;
    if kind == Type::STREAM {
        socket.listen(1024)?;
    }
    Ok(socket)
}
