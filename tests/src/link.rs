//! Connections to a worker: requests go out, typed answers come back; idle connections are kept for the next request.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::proto::{Answer, Hello, Request};

/// One connection: a thread of the worker in one network namespace.
#[derive(Debug)]
pub(crate) struct Link {
    stream: BufReader<UnixStream>,
}

impl Link {
    /// Connects to the worker and enters a namespace.
    pub(crate) fn open(socket: &Path, netns: Option<&str>) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("no worker answers at {}: did the lab end?", socket.display()))?;
        let mut link = Self { stream: BufReader::new(stream) };
        link.send(&Hello { netns: netns.map(str::to_owned) })?;
        Ok(link)
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        self.send(request)?;
        let mut line = String::new();
        self.stream.read_line(&mut line).context("the worker went away in the middle of a request")?;
        match serde_json::from_str(&line).with_context(|| format!("the worker's answer makes no sense: {line:?}"))? {
            Answer::Done(value) => Ok(serde_json::from_value(value)?),
            Answer::Failed(reason) => bail!(reason),
        }
    }

    fn send<T: serde::Serialize>(&mut self, message: &T) -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(self.stream.get_mut().write_all(&line)?)
    }
}

/// All connections to one worker for one namespace.
#[derive(Debug)]
pub(crate) struct Pool {
    socket: PathBuf,
    netns: Option<String>,
    idle: Mutex<Vec<Link>>,
}

impl Pool {
    pub(crate) fn new(socket: PathBuf, netns: Option<String>) -> Self {
        Self { socket, netns, idle: Mutex::new(Vec::new()) }
    }

    /// A connection for somebody who keeps it.
    pub(crate) fn link(&self) -> Result<Link> {
        Link::open(&self.socket, self.netns.as_deref())
    }

    /// One request over a connection that is free, or over a new one.
    pub(crate) fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let idle = self.idle.lock().expect("no holder panics").pop();
        let mut link = idle.map_or_else(|| self.link(), Ok)?;
        let answer = link.ask(request)?;
        self.idle.lock().expect("no holder panics").push(link);
        Ok(answer)
    }

    /// Closes the idle connections, so that the worker's threads leave the namespace.
    pub(crate) fn close(&self) {
        self.idle.lock().expect("no holder panics").clear();
    }
}
