//! One thread with one socket: a batch of datagrams in, a batch of responses out.

use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

use super::datagram::{Ends, Local, controls, send};
use super::frames::LONGEST;
use crate::full::{Asking, Outcome, Responder, Response, Short};
use crate::manner::Transport;
use crate::meter::{Answered, Asked, Maker, Shard};
use crate::names::Look;
use crate::site::Site;
use crate::site::log::Exchange;

/// Datagrams in one system call.
const BATCH: usize = 32;
/// How long a thread that is told to stop answers what still comes.
const LAST: Duration = Duration::from_secs(1);

/// Serves one socket.
pub(super) struct Worker {
    socket: Arc<UdpSocket>,
    responder: Arc<Responder>,
    /// What this thread counts, and what tasks count that answer later.
    shards: [Arc<Shard>; 2],
    stop: Arc<AtomicBool>,
    runtime: tokio::runtime::Handle,
    buffers: Vec<Vec<u8>>,
    received: Vec<Received>,
    replies: Vec<Reply>,
    /// Replies in use; the rest are kept for their buffers.
    ready: usize,
}

struct Received {
    ends: Ends,
    length: usize,
}

struct Reply {
    ends: Ends,
    bytes: Vec<u8>,
}

/// A response that is sent when its thread is at something else.
struct Later {
    responder: Arc<Responder>,
    socket: Arc<UdpSocket>,
    shard: Arc<Shard>,
    ends: Ends,
    begin: Instant,
    asked: Asked,
    logged: Option<(Arc<Site>, Vec<u8>)>,
}

impl Later {
    fn send(self, bytes: &[u8], answered: Answered) {
        let Self { responder, socket, shard, ends, begin, asked, logged } = self;
        shard.report(asked, answered);
        shard.took(begin.elapsed(), 1);
        if let Some((site, query)) = logged {
            let (client, took) = (ends.socket(), begin.elapsed());
            let exchange = Exchange { client, transport: Transport::Udp, query: &query, response: bytes, took };
            responder.log(&site, &exchange);
        }
        if send(&socket, &ends, bytes).is_err() {
            responder.stats.unsent.increment();
        }
    }

    /// Sends what has come back.
    fn finish(self, runtime: &tokio::runtime::Handle, response: Response, maker: Maker) {
        let answered = response.summary(maker);
        let bytes = response.encode();
        match self.responder.names.look(self.ends.address(), &bytes) {
            Look::Goes => self.send(&bytes, Answered { size: bytes.len(), ..answered }),
            look => self.hold(runtime, look, bytes, maker),
        }
    }

    /// Sends a response that the agent has to know of first, or one in its place.
    fn hold(self, runtime: &tokio::runtime::Handle, look: Look, bytes: Vec<u8>, maker: Maker) {
        let names = Arc::clone(&self.responder.names);
        names.pass_then(runtime, look, bytes, move |bytes| {
            let answered = Answered::plainly(&bytes, maker);
            self.send(&bytes, answered);
        });
    }
}

impl Worker {
    pub(super) fn new(
        socket: UdpSocket,
        responder: Arc<Responder>,
        shards: [Arc<Shard>; 2],
        stop: Arc<AtomicBool>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let buffers = (0..BATCH).map(|_| vec![0; LONGEST]).collect();
        Self {
            socket: Arc::new(socket),
            responder,
            shards,
            stop,
            runtime,
            buffers,
            received: Vec::with_capacity(BATCH),
            replies: Vec::with_capacity(BATCH),
            ready: 0,
        }
    }

    /// Serves until it is told to stop, and then what has come until then.
    pub(super) fn run(mut self) {
        let mut last = None;
        while last.is_none_or(|last| Instant::now() < last) {
            if last.is_none() && self.stop.load(Ordering::Relaxed) {
                last = Some(Instant::now() + LAST);
            }
            match self.receive() {
                Ok(()) => {
                    let begin = Instant::now();
                    self.answer();
                    self.send();
                    // One look at the clock for the batch: its responses leave together.
                    let [own, _] = &self.shards;
                    own.took(begin.elapsed(), self.ready as u64);
                }
                Err(Errno::EAGAIN) if last.is_some() => return,
                // Nothing came, or an earlier response met an error on its way.
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
                Err(error) => {
                    tracing::warn!(%error, "can't receive UDP queries");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    fn receive(&mut self) -> Result<(), Errno> {
        self.received.clear();
        // The kernel writes lengths into the headers that the next call would take for limits, so they are made anew.
        let space = nix::cmsg_space!(libc::in6_pktinfo);
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, Some(space));
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self.buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
        let messages =
            recvmmsg(self.socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None)?;
        for message in messages {
            let local = message.cmsgs().ok().and_then(Local::read);
            // A datagram that was cut off is not a message: of length 0 it is counted and left alone.
            let length = if message.flags.contains(MsgFlags::MSG_TRUNC) { 0 } else { message.bytes };
            match message.address {
                Some(client) => self.received.push(Received { ends: Ends { client, local }, length }),
                None => self.received.push(Received { ends: Ends { client: unknown(), local }, length: 0 }),
            }
        }
        Ok(())
    }

    fn answer(&mut self) {
        self.ready = 0;
        let mut left = Vec::new();
        let mut asking = Vec::new();
        let mut held = Vec::new();
        let mut cached = 0;
        let (site, begin) = (self.responder.site(), Instant::now());
        // What is logged is written when nobody waits for the zone.
        let mut logged = Vec::new();
        {
            // One lock for the batch: whoever changes the zone waits for microseconds.
            let zone = self.responder.zone.read().unwrap_or_else(PoisonError::into_inner);
            for (index, Received { ends, length }) in self.received.iter().enumerate() {
                let Some(message) = self.buffers.get(index).and_then(|buffer| buffer.get(..*length)) else { continue };
                let reply = next(&mut self.replies, self.ready, *ends);
                let client = ends.address();
                let said =
                    self.responder.respond_shortly(&zone, &site, message, Transport::Udp, client, &mut reply.bytes);
                let maker = match said {
                    Short::Written(maker) => maker,
                    Short::Renew(question) => {
                        let responder = Arc::clone(&self.responder);
                        self.runtime.spawn(async move { responder.renew(question, client).await });
                        Maker::Cache
                    }
                    Short::Ask(ask) => {
                        asking.push((index, ask));
                        continue;
                    }
                    Short::Nothing => {
                        left.push(index);
                        continue;
                    }
                };
                cached += u64::from(maker == Maker::Cache);
                let look = self.responder.names.look(client, &reply.bytes);
                if !matches!(look, Look::Goes) {
                    held.push((index, maker, look, std::mem::take(&mut reply.bytes)));
                    continue;
                }
                let [own, _] = &self.shards;
                own.report(Asked::new(message, ends.is_v6()), Answered::plainly(&reply.bytes, maker));
                if site.logs() {
                    logged.push((index, self.ready));
                }
                self.ready += 1;
            }
        }
        for (index, at) in logged {
            let (Some(received), Some(reply)) = (self.received.get(index), self.replies.get(at)) else { continue };
            let query = self.buffers.get(index).and_then(|buffer| buffer.get(..received.length)).unwrap_or_default();
            let (client, took) = (received.ends.socket(), begin.elapsed());
            let exchange = Exchange { client, transport: Transport::Udp, query, response: &reply.bytes, took };
            self.responder.log(&site, &exchange);
        }
        self.responder.stats.fast.add((self.ready + held.len()) as u64 - cached);
        if cached > 0 {
            self.responder.stats.cached.add(cached);
        }
        for (index, maker, look, bytes) in held {
            self.hold(index, &site, begin, (maker, look, bytes));
        }
        for (index, ask) in asking {
            self.ask(index, &site, begin, *ask);
        }
        for index in left {
            self.answer_in_full(index, &site);
        }
    }

    fn ask(&self, index: usize, site: &Arc<Site>, begin: Instant, asking: Asking) {
        let (Some(received), Some(buffer)) = (self.received.get(index), self.buffers.get(index)) else { return };
        let Some(message) = buffer.get(..received.length) else { return };
        let (later, runtime) = (self.later(received.ends, message, begin, site), self.runtime.clone());
        let _context = self.runtime.enter();
        self.responder.begin_shortly(asking, move |response, maker| later.finish(&runtime, response, maker));
    }

    /// Sends a response that the agent has to know of first, or one in its place.
    fn hold(&self, index: usize, site: &Arc<Site>, begin: Instant, (maker, look, bytes): (Maker, Look, Vec<u8>)) {
        let (Some(received), Some(buffer)) = (self.received.get(index), self.buffers.get(index)) else { return };
        let Some(message) = buffer.get(..received.length) else { return };
        self.later(received.ends, message, begin, site).hold(&self.runtime, look, bytes, maker);
    }

    /// What it takes to answer when this thread is at something else.
    fn later(&self, ends: Ends, message: &[u8], begin: Instant, site: &Arc<Site>) -> Later {
        let [_, shard] = &self.shards;
        Later {
            responder: Arc::clone(&self.responder),
            socket: Arc::clone(&self.socket),
            shard: Arc::clone(shard),
            ends,
            begin,
            asked: Asked::new(message, ends.is_v6()),
            logged: site.logs().then(|| (Arc::clone(site), message.to_vec())),
        }
    }

    /// Sends an answer when it is there.
    fn wait(
        &self,
        ends: Ends,
        message: &[u8],
        begin: Instant,
        site: &Arc<Site>,
        answer: impl Future<Output = (Response, Maker)> + Send + 'static,
    ) {
        let (later, runtime) = (self.later(ends, message, begin, site), self.runtime.clone());
        self.runtime.spawn(async move {
            let (response, maker) = answer.await;
            later.finish(&runtime, response, maker);
        });
    }

    fn answer_in_full(&mut self, index: usize, site: &Arc<Site>) {
        let begin = Instant::now();
        let (Some(received), Some(buffer)) = (self.received.get(index), self.buffers.get(index)) else { return };
        let Some(message) = buffer.get(..received.length) else { return };
        let ends = received.ends;
        let asked = Asked::new(message, ends.is_v6());
        let [own, _] = &self.shards;
        match self.responder.respond_to(message, Transport::Udp, ends.address()) {
            // Whole zones go over streams only.
            Outcome::Silence | Outcome::Transfer(_) => {}
            Outcome::Reply(response) => {
                let answered = response.summary(Maker::Kubernetes);
                let bytes = response.encode();
                let look = self.responder.names.look(ends.address(), &bytes);
                if !matches!(look, Look::Goes) {
                    self.hold(index, site, begin, (answered.maker, look, bytes));
                    return;
                }
                own.report(asked, Answered { size: bytes.len(), ..answered });
                let (client, took) = (ends.socket(), begin.elapsed());
                let exchange = Exchange { client, transport: Transport::Udp, query: message, response: &bytes, took };
                self.responder.log(site, &exchange);
                next(&mut self.replies, self.ready, ends).bytes = bytes;
                self.ready += 1;
            }
            Outcome::Pending(pending) => {
                let responder = Arc::clone(&self.responder);
                self.wait(ends, message, begin, site, async move { responder.finish(*pending).await });
            }
        }
    }

    /// Sends what is ready, in runs that leave from the same address.
    fn send(&mut self) {
        let ready = self.replies.get(..self.ready).unwrap_or_default();
        for run in ready.chunk_by(|a, b| Local::same(a.ends.local.as_ref(), b.ends.local.as_ref())) {
            let mut rest = run;
            while let Some(first) = rest.first() {
                let sent = self.send_run(first.ends.local.as_ref(), rest).unwrap_or(0);
                // The first that wasn't sent is the one that the kernel doesn't take.
                let lost = usize::from(sent < rest.len());
                self.responder.stats.unsent.add(lost as u64);
                rest = rest.get(sent + lost..).unwrap_or_default();
            }
        }
    }

    fn send_run(&self, local: Option<&Local>, replies: &[Reply]) -> Result<usize, Errno> {
        let space = local.map(|local| match local {
            Local::V4(_) => nix::cmsg_space!(libc::in_pktinfo),
            Local::V6(_) => nix::cmsg_space!(libc::in6_pktinfo),
        });
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(replies.len(), space);
        let slices: Vec<[IoSlice<'_>; 1]> = replies.iter().map(|reply| [IoSlice::new(&reply.bytes)]).collect();
        let clients: Vec<_> = replies.iter().map(|reply| Some(reply.ends.client)).collect();
        let sent =
            sendmmsg(self.socket.as_raw_fd(), &mut headers, &slices, clients, controls(local), MsgFlags::MSG_DONTWAIT)?;
        Ok(sent.count())
    }
}

/// The next reply, with a buffer that was used before where there is one.
fn next(replies: &mut Vec<Reply>, at: usize, ends: Ends) -> &mut Reply {
    if at >= replies.len() {
        replies.push(Reply { ends, bytes: Vec::with_capacity(512) });
    }
    let at = at.min(replies.len() - 1);
    let reply = &mut replies[at];
    reply.ends = ends;
    reply
}

fn unknown() -> SockaddrStorage {
    SockaddrStorage::from(std::net::SocketAddr::from(([0, 0, 0, 0], 0)))
}
