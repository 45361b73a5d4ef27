//! The server of the exact load generator: it answers a byte with that byte, and closes if it was asked to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::attempt::AND_CLOSE;
use super::own_files;

const STOP: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;
const DATAGRAMS: u64 = u64::MAX - 2;

/// Bytes of datagrams that may wait: what comes while this thread waits for a CPU.
const QUEUE: usize = 8 << 20;

/// Threads, each with its own share of the connections and of the files that a thread may have.
const THREADS: usize = 4;

/// A server that runs. It ends when it is dropped.
pub(crate) struct Sink {
    threads: Vec<(Arc<EventFd>, JoinHandle<()>)>,
}

impl Sink {
    /// Answers in threads of its own, once all of them listen in this thread's namespace.
    pub(crate) fn start(port: u16) -> Result<Self> {
        let mut sink = Self { threads: Vec::new() };
        for _ in 0..THREADS {
            let stop = Arc::new(EventFd::new()?);
            let (said, heard) = mpsc::channel();
            let stops = stop.clone();
            let run = move || match Server::new(port, &stops) {
                Ok(mut server) => {
                    let _ = said.send(Ok(()));
                    server.run();
                }
                Err(error) => {
                    let _ = said.send(Err(error));
                }
            };
            let thread = thread::Builder::new().stack_size(256 << 10).spawn(run)?;
            sink.threads.push((stop, thread));
            heard.recv().context("a thread of the sink broke")??;
        }
        Ok(sink)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        for (stop, thread) in self.threads.drain(..) {
            if stop.write(1).is_ok() {
                let _ = thread.join();
            }
        }
    }
}

struct Server {
    epoll: Epoll,
    listener: TcpListener,
    datagrams: UdpSocket,
    /// By the number of the socket.
    streams: Vec<Option<TcpStream>>,
}

impl Server {
    fn new(port: u16, stop: &EventFd) -> Result<Self> {
        own_files()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let listener: TcpListener = bound(Type::STREAM, port)?.into();
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        let datagrams = bound(Type::DGRAM, port)?;
        setsockopt(&datagrams, sockopt::RcvBufForce, &QUEUE)?;
        let datagrams: UdpSocket = datagrams.into();
        epoll.add(&datagrams, EpollEvent::new(EpollFlags::EPOLLIN, DATAGRAMS))?;
        Ok(Self { epoll, listener, datagrams, streams: Vec::new() })
    }

    fn run(&mut self) {
        let mut events = [EpollEvent::empty(); 512];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            for event in &events[..count] {
                match event.data() {
                    STOP => return,
                    LISTENER => self.accept(),
                    DATAGRAMS => self.answer_datagrams(),
                    place => self.answer(place as usize),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let place = usize::try_from(stream.as_raw_fd()).expect("an open file has a number");
            let event = EpollEvent::new(EpollFlags::EPOLLIN, place as u64);
            // What can't be watched is closed, which its client then sees.
            if stream.set_nonblocking(true).is_ok() && self.epoll.add(stream.as_fd(), event).is_ok() {
                if self.streams.len() <= place {
                    self.streams.resize_with(place + 1, || None);
                }
                self.streams[place] = Some(stream);
            }
        }
    }

    fn answer(&mut self, place: usize) {
        let Some(Some(stream)) = self.streams.get_mut(place) else { return };
        let mut byte = [0];
        let stays = match stream.read(&mut byte) {
            Ok(0) => false,
            Ok(_) => stream.write_all(&byte).is_ok() && byte[0] != AND_CLOSE,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if !stays {
            self.streams[place] = None;
        }
    }

    fn answer_datagrams(&mut self) {
        let mut buffer = [0; 64];
        while let Ok((count, from)) = self.datagrams.recv_from(&mut buffer) {
            // An answer that can't be sent is a lost datagram: the client sees it.
            let _ = self.datagrams.send_to(&buffer[..count], from);
        }
    }
}

/// A socket on a port of all addresses of both families.
fn bound(kind: Type, port: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind.nonblocking(), None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket
        .bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into())
        .with_context(|| format!("a sink can't listen on {port}"))?;
    if kind == Type::STREAM {
        socket.listen(4096)?;
    }
    Ok(socket)
}
