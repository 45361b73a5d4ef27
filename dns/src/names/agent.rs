//! The connection to the node's agent: many questions at once, each with its own patience.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairlead_objects::names::{Ask, Line, Reply, Said};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long an answer waits for the agent.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// Bytes of questions that wait to be written.
const MOST_WAITING: usize = 256 << 10;

/// How soon a socket that had no room for a question is tried again.
const ROOM: Duration = Duration::from_millis(1);

/// How soon an agent that is not there is looked for again: within the patience of a question.
const RETRY: Duration = Duration::from_millis(20);

/// Hears what the agent has said, or that it has said nothing.
pub(super) type Tell = Box<dyn FnOnce(Option<Said>) + Send>;

/// The agent, while it is there.
#[derive(Debug)]
pub(super) struct Agent {
    talk: watch::Sender<Option<Arc<Talk>>>,
}

/// A connection. Who asks writes to it at once, whatever thread that is: to hand the question to another one first would take as
/// long as the agent does.
#[derive(Debug)]
struct Talk {
    line: Line,
    /// What the socket had no room for.
    rest: Mutex<Vec<u8>>,
    /// There is such a rest.
    rests: Notify,
    waiting: Mutex<Waiting>,
    /// Somebody waits, and nobody looks when that ends.
    comes: Notify,
    next: AtomicU64,
}

/// Who waits for a reply.
#[derive(Default)]
struct Waiting {
    /// By the numbers of their questions, which ascend: so do their ends.
    tells: BTreeMap<u64, (Instant, Tell)>,
    /// Nobody looks when waits end. Who asks wakes that task only then: to wake it for each question takes as long as a wake of the
    /// agent, and takes a CPU from it.
    is_idle: bool,
    /// The agent has hung up.
    is_over: bool,
}

impl Waiting {
    /// When the first wait ends. Who asks this sleeps until then, or until somebody comes.
    fn first_end(&mut self) -> Option<Instant> {
        let first = self.tells.first_key_value().map(|(_, (end, _))| *end);
        self.is_idle = first.is_none();
        first
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("count", &self.tells.len()).field("is_over", &self.is_over).finish()
    }
}

impl Talk {
    fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self {
            line: Line::new(stream)?,
            rest: Mutex::default(),
            rests: Notify::new(),
            waiting: Mutex::default(),
            comes: Notify::new(),
            next: AtomicU64::new(0),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rest(&self) -> MutexGuard<'_, Vec<u8>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a question. `tell` hears the reply, whoever reads that. It is given back if the agent has hung up or does not read.
    fn ask(&self, ask: &mut Ask, tell: Tell) -> Result<(), Tell> {
        let mut waiting = self.waiting();
        if waiting.is_over {
            return Err(tell);
        }
        // With the lock, so that they ascend.
        ask.id = self.next.fetch_add(1, Ordering::Relaxed);
        let was_idle = std::mem::take(&mut waiting.is_idle);
        waiting.tells.insert(ask.id, (Instant::now() + PATIENCE, tell));
        drop(waiting);
        // Whether it is written or not: others may wait behind it by now.
        if was_idle {
            self.comes.notify_one();
        }
        if self.write(&ask.encode()) {
            return Ok(());
        }
        // Nothing, if it ended meanwhile: then it has been told.
        let taken = self.waiting().tells.remove(&ask.id);
        taken.map_or(Ok(()), |(_, tell)| Err(tell))
    }

    /// Says what a client is given, and waits for no reply. Whether the agent reads it.
    fn say(&self, ask: &mut Ask) -> bool {
        ask.id = self.next.fetch_add(1, Ordering::Relaxed);
        self.write(&ask.encode())
    }

    /// Writes a line behind what waits. Says whether there was room.
    fn write(&self, line: &[u8]) -> bool {
        let mut rest = self.rest();
        if rest.len() + line.len() > MOST_WAITING {
            return false;
        }
        // What an error means is heard by who reads.
        let written = if rest.is_empty() { self.line.write(line).unwrap_or_default() } else { 0 };
        let left = line.get(written..).unwrap_or_default();
        if !left.is_empty() {
            rest.extend_from_slice(left);
            drop(rest);
            self.rests.notify_one();
        }
        true
    }

    /// Writes what the socket had no room for, once it has.
    async fn write_rest(&self) -> io::Result<()> {
        loop {
            self.rests.notified().await;
            while !self.rest().is_empty() {
                sleep(ROOM).await;
                let mut rest = self.rest();
                match self.line.write(&rest) {
                    Ok(written) => drop(rest.drain(..written)),
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn hear(&self, line: &[u8]) -> io::Result<()> {
        let reply = Reply::decode(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        // Nobody waits for it any more if it took too long.
        let waited = self.waiting().tells.remove(&reply.id);
        if let Some((_, told)) = waited {
            tell(told, Some(reply.said));
        }
        Ok(())
    }

    /// Tells those that have waited for long enough.
    async fn end_waits(&self) -> io::Result<()> {
        loop {
            let first = self.waiting().first_end();
            let Some(first) = first else {
                self.comes.notified().await;
                continue;
            };
            sleep_until(first).await;
            self.tell_until(Some(Instant::now()));
        }
    }

    /// The agent has hung up: nobody who waits hears anything, and nobody waits from now on.
    fn end(&self) {
        self.waiting().is_over = true;
        self.tell_until(None);
    }

    /// Tells those whose wait ends until then that the agent has said nothing.
    fn tell_until(&self, time: Option<Instant>) {
        loop {
            let mut waiting = self.waiting();
            let first = waiting.tells.first_entry();
            let Some(first) = first.filter(|first| time.is_none_or(|time| first.get().0 <= time)) else { return };
            let (_, told) = first.remove();
            drop(waiting);
            tell(told, None);
        }
    }
}

/// What one of them does with it is nothing to the others.
fn tell(told: Tell, said: Option<Said>) {
    // It is counted, and written to the log, where it begins.
    let _panicked = catch_unwind(AssertUnwindSafe(|| told(said)));
}

impl Agent {
    /// Keeps a connection, in the current runtime.
    pub(super) fn connect(socket: &Path) -> Arc<Self> {
        let agent = Arc::new(Self { talk: watch::Sender::new(None) });
        tokio::spawn(keep(Arc::clone(&agent), socket.to_owned()));
        agent
    }

    /// Holds a connection until its end.
    async fn hold(&self, talk: Talk) -> io::Result<()> {
        let talk = Arc::new(talk);
        self.talk.send_replace(Some(Arc::clone(&talk)));
        let ended = tokio::select! {
            ended = talk.line.listen(|line| talk.hear(line)) => ended,
            ended = talk.write_rest() => ended,
            ended = talk.end_waits() => ended,
        };
        self.talk.send_replace(None);
        talk.end();
        ended
    }

    /// Says what a client is given, if the agent is there.
    pub(super) fn say(&self, mut ask: Ask) -> bool {
        let talk = self.talk.borrow().clone();
        talk.is_some_and(|talk| talk.say(&mut ask))
    }

    /// Asks, from any thread, and `tell` hears what the agent says. Both are given back if it is not there.
    pub(super) fn ask_at_once(&self, mut ask: Ask, tell: Tell) -> Result<(), (Ask, Tell)> {
        let talk = self.talk.borrow().clone();
        match talk {
            Some(talk) => talk.ask(&mut ask, tell).map_err(|tell| (ask, tell)),
            None => Err((ask, tell)),
        }
    }

    /// Asks, and waits for a short time. `None`: nobody has said anything.
    pub(super) async fn ask(&self, mut ask: Ask) -> Option<Said> {
        let mut talks = self.talk.subscribe();
        let asked = async {
            let talk = loop {
                let talk = talks.borrow_and_update().clone();
                match talk {
                    Some(talk) => break talk,
                    None => talks.changed().await.ok()?,
                }
            };
            let (tell, told) = oneshot::channel();
            let tell = move |said| {
                let _gave_up = tell.send(said);
            };
            talk.ask(&mut ask, Box::new(tell)).ok()?;
            told.await.ok().flatten()
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }
}

async fn keep(agent: Arc<Agent>, socket: PathBuf) {
    let mut complaint = String::new();
    loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => {
                tracing::info!(socket = %socket.display(), "asking the node's agent which names open what");
                complaint.clear();
                let ended = match Talk::new(stream) {
                    Ok(talk) => agent.hold(talk).await,
                    Err(error) => Err(error),
                };
                tracing::info!(error = ended.err().map(|error| error.to_string()), "the node's agent hung up");
            }
            Err(error) => {
                let text = error.to_string();
                if text != complaint {
                    tracing::info!(socket = %socket.display(), error = text, "the node's agent is not there to be asked");
                    complaint = text;
                }
            }
        }
        sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;
    use tokio::runtime::Handle;

    use super::*;

    fn question(name: &str) -> Ask {
        let addresses = vec![[192, 0, 2, 1].into()];
        Ask { id: 0, client: [10, 244, 1, 5].into(), name: name.to_owned(), ttl: 30, addresses }
    }

    /// Who has asked, and what it has heard.
    type Heard = (String, Option<Said>);

    struct Stage {
        path: PathBuf,
        listener: UnixListener,
        agent: Arc<Agent>,
        /// Where those who ask say what they hear, and what they have said.
        hears: Sender<Heard>,
        heard: Receiver<Heard>,
    }

    impl Stage {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("fairlead-asked-{}-{name}", std::process::id()));
            let _none = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).unwrap();
            let (hears, heard) = channel();
            Self { agent: Agent::connect(&path), path, listener, hears, heard }
        }

        /// The agent's side of the next connection.
        async fn accept(&self) -> BufReader<UnixStream> {
            let (stream, _) = self.listener.accept().await.unwrap();
            while self.agent.talk.borrow().is_none() {
                sleep(Duration::from_millis(1)).await;
            }
            BufReader::new(stream)
        }

        /// Asks from a thread that has no runtime.
        fn ask(&self, name: &str) -> bool {
            let (agent, tell, ask) = (&self.agent, self.hears.clone(), question(name));
            let name = name.to_owned();
            let asked = std::thread::scope(|scope| {
                let ask = || {
                    assert!(Handle::try_current().is_err());
                    agent.ask_at_once(ask, Box::new(move |said| tell.send((name, said)).unwrap()))
                };
                scope.spawn(ask).join().unwrap()
            });
            asked.is_ok()
        }

        fn heard(&self) -> BTreeMap<String, Option<Said>> {
            let heard: Vec<_> = self.heard.try_iter().collect();
            let names: BTreeMap<_, _> = heard.iter().cloned().collect();
            assert_eq!(names.len(), heard.len(), "each hears once");
            names
        }
    }

    impl Drop for Stage {
        fn drop(&mut self) {
            let _gone = std::fs::remove_file(&self.path);
        }
    }

    async fn read(agent: &mut BufReader<UnixStream>) -> Ask {
        let mut line = Vec::new();
        agent.read_until(b'\n', &mut line).await.unwrap();
        Ask::decode(&line).unwrap()
    }

    async fn until(mut is: impl FnMut() -> bool) {
        for _ in 0..2000 {
            if is() {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
        panic!("it does not come to that");
    }

    #[tokio::test]
    async fn p75_each_hears_what_the_agent_says_of_its_own() {
        let stage = Stage::new("own");
        let mut agent = stage.accept().await;
        assert!(stage.ask("a.example") && stage.ask("b.example"));
        let (a, b) = (read(&mut agent).await, read(&mut agent).await);
        assert_eq!((a.name.as_str(), b.name.as_str()), ("a.example", "b.example"));
        let replies = [Reply { id: b.id, said: Said::Refused }, Reply { id: a.id, said: Said::InForce }];
        agent.write_all(&replies.map(|reply| reply.encode()).concat()).await.unwrap();
        let mut heard = BTreeMap::new();
        until(|| {
            heard.extend(stage.heard());
            heard.len() == 2
        })
        .await;
        assert_eq!((heard["a.example"], heard["b.example"]), (Some(Said::InForce), Some(Said::Refused)));
    }

    #[tokio::test]
    async fn p77_who_waits_hears_in_time_that_the_agent_says_nothing() {
        let stage = Stage::new("silent");
        let mut agent = stage.accept().await;
        // Once more when nobody has waited for a while.
        for round in ["first.example", "again.example"] {
            let begin = Instant::now();
            assert!(stage.ask(round));
            let silent = read(&mut agent).await;
            let mut heard = BTreeMap::new();
            until(|| {
                heard.extend(stage.heard());
                !heard.is_empty()
            })
            .await;
            assert!(heard[round].is_none() && begin.elapsed() >= PATIENCE, "{heard:?}");
            // What comes too late is nothing to anybody.
            agent.write_all(&Reply { id: silent.id, said: Said::InForce }.encode()).await.unwrap();
            sleep(2 * PATIENCE).await;
            assert!(stage.heard().is_empty());
        }
    }

    #[tokio::test]
    async fn p77_an_agent_that_hangs_up_keeps_nobody_waiting() {
        let stage = Stage::new("hangs-up");
        let agent = stage.accept().await;
        let begin = Instant::now();
        assert!(stage.ask("a.example"));
        let line = stage.agent.talk.borrow().clone().unwrap();
        drop(agent);
        let mut heard = BTreeMap::new();
        until(|| {
            heard.extend(stage.heard());
            !heard.is_empty()
        })
        .await;
        assert!(heard["a.example"].is_none() && begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
        // Who has seen the line before it ended is given the question back.
        assert!(line.ask(&mut question("b.example"), Box::new(|_| panic!("nobody is told"))).is_err());
        let mut agent = stage.accept().await;
        assert!(stage.ask("c.example"));
        assert_eq!(read(&mut agent).await.name, "c.example");
    }

    #[tokio::test]
    async fn p77_an_agent_that_reads_late_gets_whole_questions_and_no_more_than_fit() {
        let stage = Stage::new("late");
        let mut agent = stage.accept().await;
        let mut asked = 0;
        while stage.ask(&format!("{asked}.{}", "a".repeat(200))) {
            asked += 1;
            assert!(asked < 100_000, "there is no end to it");
        }
        assert!(asked > 500, "{asked}");
        // None of them is lost, and none is told twice.
        let mut heard = BTreeMap::new();
        until(|| {
            heard.extend(stage.heard());
            heard.len() == asked
        })
        .await;
        assert!(heard.values().all(Option::is_none));
        for n in 0..asked {
            assert!(read(&mut agent).await.name.starts_with(&format!("{n}.a")));
        }
        // Once it reads, it is asked as before.
        until(|| stage.ask("b.example")).await;
        let ask = read(&mut agent).await;
        assert_eq!(ask.name, "b.example");
        agent.write_all(&Reply { id: ask.id, said: Said::NotCovered }.encode()).await.unwrap();
        until(|| stage.heard().get("b.example") == Some(&Some(Said::NotCovered))).await;
    }

    #[tokio::test]
    async fn p77_one_that_panics_takes_nobody_along() {
        let stage = Stage::new("panics");
        let mut agent = stage.accept().await;
        let asked = stage.agent.ask_at_once(question("a.example"), Box::new(|said| panic!("{said:?}")));
        assert!(asked.is_ok() && stage.ask("b.example"));
        for _ in 0..2 {
            let ask = read(&mut agent).await;
            agent.write_all(&Reply { id: ask.id, said: Said::InForce }.encode()).await.unwrap();
        }
        until(|| stage.heard().get("b.example") == Some(&Some(Said::InForce))).await;
    }
}
