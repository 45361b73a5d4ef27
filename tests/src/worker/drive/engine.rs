//! All exchanges that are under way, by one epoll.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::Socket;

use super::attempt::{Attempt, Step};
use crate::drive::{Driven, Ending};

/// How long a connection, or the answer to a datagram, may take: less than until TCP sends its SYN again, so a packet that is
/// lost is a failure.
const CONNECT: Duration = Duration::from_millis(950);

/// How long an exchange may take as a whole.
const WHOLE: Duration = Duration::from_secs(5);

/// What attempts are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Connections are kept.
    Keep,
    /// A byte goes there and back.
    Exchange(Ending),
}

/// The exchanges.
pub(super) struct Engine {
    to: SocketAddr,
    task: Task,
    epoll: Epoll,
    /// By the number of the socket.
    attempts: Vec<Option<(u64, Attempt)>>,
    under_way: usize,
    /// In the order in which they began: number of the attempt and of its socket.
    connecting: VecDeque<(Instant, u64, usize)>,
    open: VecDeque<(Instant, u64, usize)>,
    events: Vec<EpollEvent>,
    kept: Vec<Socket>,
    driven: Driven,
}

impl Engine {
    pub(super) fn new(to: SocketAddr, task: Task) -> Result<Self> {
        Ok(Self {
            to,
            task,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            attempts: Vec::new(),
            under_way: 0,
            connecting: VecDeque::new(),
            open: VecDeque::new(),
            events: vec![EpollEvent::empty(); 512],
            kept: Vec::new(),
            driven: Driven::default(),
        })
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Begins one.
    pub(super) fn start(&mut self) {
        self.driven.attempted += 1;
        match Attempt::start(self.to, self.task) {
            Ok(attempt) => self.admit(attempt),
            Err(error) => self.fail(format!("connect: {error}")),
        }
    }

    /// Begins one on a connection that is there.
    pub(super) fn adopt(&mut self, socket: Socket) {
        self.driven.attempted += 1;
        self.admit(Attempt::on(socket));
    }

    fn admit(&mut self, attempt: Attempt) {
        let number = self.driven.attempted;
        let place = usize::try_from(attempt.socket().as_raw_fd()).expect("an open file has a number");
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        if let Err(error) = self.epoll.add(attempt.socket(), EpollEvent::new(flags, place as u64)) {
            return self.fail(format!("epoll: {error}"));
        }
        if self.attempts.len() <= place {
            self.attempts.resize_with(place + 1, || None);
        }
        self.connecting.push_back((attempt.started, number, place));
        self.open.push_back((attempt.started, number, place));
        self.attempts[place] = Some((number, attempt));
        self.under_way += 1;
    }

    /// Goes on with whatever is ready, then gives up what takes too long. In this order: where this thread had to wait for a
    /// CPU, what has been answered meanwhile was in time.
    pub(super) fn poll(&mut self, millis: u8) -> Result<()> {
        let mut timeout = EpollTimeout::from(millis);
        loop {
            let mut events = std::mem::take(&mut self.events);
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                self.go_on(event.data() as usize, event.events());
            }
            let all = count < events.len();
            self.events = events;
            if all {
                break;
            }
            timeout = EpollTimeout::ZERO;
        }
        self.expire();
        Ok(())
    }

    /// Waits until nothing is under way.
    pub(super) fn finish(&mut self) -> Result<()> {
        while self.under_way > 0 {
            self.poll(5)?;
        }
        Ok(())
    }

    /// The connections that are kept.
    pub(super) fn take_kept(&mut self) -> Vec<Socket> {
        std::mem::take(&mut self.kept)
    }

    /// What became of all.
    pub(super) fn into_driven(mut self) -> Driven {
        self.driven.setups.sort_unstable();
        self.driven
    }

    fn go_on(&mut self, place: usize, flags: EpollFlags) {
        let Some(Some((_, attempt))) = self.attempts.get_mut(place) else { return };
        let had_setup = attempt.setup.is_some();
        let step = attempt.advance(self.task, flags.contains(EpollFlags::EPOLLOUT));
        if let (false, Some(took)) = (had_setup, attempt.setup) {
            self.driven.setups.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
        match step {
            Step::Waits => {}
            Step::Done => drop(self.take(place)),
            Step::Keep => {
                if let Some(attempt) = self.take(place) {
                    let socket = attempt.into_socket();
                    match self.epoll.delete(&socket) {
                        Ok(()) => self.kept.push(socket),
                        Err(error) => self.fail(format!("epoll: {error}")),
                    }
                }
            }
            Step::Failed(reason) => {
                drop(self.take(place));
                self.fail(reason);
            }
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let is_late = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        while let Some(&(started, number, place)) = self.connecting.front()
            && (is_late(started, CONNECT) || !self.waits_for_setup(number, place))
        {
            self.connecting.pop_front();
            if self.waits_for_setup(number, place) {
                self.give_up(place);
            }
        }
        while let Some(&(started, number, place)) = self.open.front()
            && (is_late(started, WHOLE) || !self.is_under_way(number, place))
        {
            self.open.pop_front();
            if self.is_under_way(number, place) {
                self.give_up(place);
            }
        }
    }

    fn is_under_way(&self, number: u64, place: usize) -> bool {
        matches!(&self.attempts[place], Some((of, _)) if *of == number)
    }

    fn waits_for_setup(&self, number: u64, place: usize) -> bool {
        matches!(&self.attempts[place], Some((of, attempt)) if *of == number && attempt.setup.is_none())
    }

    fn give_up(&mut self, place: usize) {
        if let Some(attempt) = self.take(place) {
            self.fail(attempt.missing(self.task).to_owned());
        }
    }

    fn take(&mut self, place: usize) -> Option<Attempt> {
        let (_, attempt) = self.attempts.get_mut(place)?.take()?;
        self.under_way -= 1;
        Some(attempt)
    }

    fn fail(&mut self, reason: String) {
        *self.driven.failed.entry(reason).or_default() += 1;
    }
}
