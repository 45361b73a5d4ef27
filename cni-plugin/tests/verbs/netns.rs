//! Network namespaces that live as long as a thread.

use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace. It goes with its thread, and that with the test, however it ends.
pub(crate) struct Netns {
    /// Where it can be opened.
    pub(crate) path: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Netns {
    pub(crate) fn new() -> Self {
        let (jobs, received) = mpsc::channel::<Job>();
        let (ready, path) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            ready.send(format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid())).unwrap();
            received.into_iter().for_each(|job| job());
        });
        Self { path: path.recv().unwrap(), jobs: Some(jobs), thread: Some(thread) }
    }

    /// Does something in it. A thread that is started there stays in it.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = Box::new(move || drop(done.send(job())));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result.recv().expect("the job panicked")
    }

    /// Runs a command in it and gives what it printed.
    pub(crate) fn command(&self, line: &str) -> String {
        let (fine, out) = self.try_command(line);
        assert!(fine, "{line}: {out}");
        out
    }

    pub(crate) fn try_command(&self, line: &str) -> (bool, String) {
        let mut words = line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter();
        self.run(move || {
            let out = Command::new(words.next().unwrap()).args(words).output().unwrap();
            let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
            (out.status.success(), text)
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _panicked_before = thread.join();
        }
    }
}
